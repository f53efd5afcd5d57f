//! A converter that is killed.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use draught_testkit::fault_proxy::{Fault, Rule};
use draught_testkit::registry;
use serde_json::Value;

use crate::stage::Stage;

/// How long a conversion may take on a busy machine until it has come to the layer that it waits for.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_killed_conversion_leaves_no_tag_and_the_next_goes_on_from_there() {
    let (stage, registry) = (Stage::new(), registry());
    let (plain, lazy) = (registry.reference("app:1"), registry.reference("lazy:1"));
    stage.json(&plain, &["--to", "oci"]);
    let digest = |layer: &Value| layer["digest"].as_str().unwrap().to_owned();
    let inspected = stage.done(&["--format", "json", "inspect", &plain]);
    let inspected: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    let layers = inspected["images"][0]["layers"].as_array().unwrap();
    let layers: Vec<String> = layers.iter().map(digest).collect();
    let last = layers.last().unwrap();
    let hang = Rule::new(Fault::Hang).on_method("GET").on_path(last);
    let id = registry.proxy().inject(hang);
    let mut converting = Command::new(env!("CARGO_BIN_EXE_draught"))
        .args([
            "--root",
            "state",
            "--progress",
            "none",
            "convert",
            &plain,
            &lazy,
        ])
        .current_dir(stage.scratch.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // All but the last layer are done when as many are noted.
    let noted = || {
        let places = fs_err::read_dir(stage.scratch.join("state/convert"));
        let places = places
            .into_iter()
            .flatten()
            .map(|place| place.unwrap().path());
        let files = places.map(|place| fs_err::read_dir(place).into_iter().flatten().count());
        files.sum::<usize>()
    };
    let begun = Instant::now();
    while noted() < layers.len() - 1 {
        assert!(begun.elapsed() < PATIENCE, "{} layers are noted", noted());
        std::thread::sleep(Duration::from_millis(20));
    }
    converting.kill().unwrap();
    converting.wait().unwrap();
    registry.proxy().lift(id);
    assert_eq!(stage.draught(&["inspect", &lazy]).status.code(), Some(1));
    let before = registry.proxy().counts();
    let output = stage.done(&["--format", "json", "convert", &plain, &lazy]);
    let converted: Value = serde_json::from_slice(&output.stdout).unwrap();
    let made = registry.proxy().counts().since(&before);
    for layer in &layers {
        let expect = u64::from(layer == last);
        assert_eq!(made.matching("GET", layer).requests, expect, "{layer}");
    }
    let reports = converted["images"][0]["layers"].as_array().unwrap();
    let cached = reports
        .iter()
        .filter(|layer| layer["cached"] == true)
        .count();
    assert_eq!(cached, layers.len() - 1);
    assert_eq!(noted(), 0);
    stage.done(&["check", &lazy]);
}
