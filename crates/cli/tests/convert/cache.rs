//! `draught convert --cache`, as a person sees it.

use serde_json::Value;

use crate::stage::Stage;

#[test]
fn what_came_from_a_cache_is_sound_and_the_report_says_so() {
    let stage = Stage::new();
    let plain = stage.json("oci:plain:new", &[]);
    assert_eq!(plain["cache"], Value::Null);
    let cache = ["--cache", "dir:cache", "--cache-size", "20"];
    let first = stage.json("oci:first:new", &cache);
    let second = stage.json("oci:second:new", &cache);
    for converted in [&first, &second] {
        assert_eq!(converted["digest"], plain["digest"]);
    }
    let layers = plain["images"][0]["layers"].as_array().unwrap().len();
    assert_eq!(first["cache"]["misses"], layers);
    assert_eq!(second["cache"]["hits"], layers);
    assert_eq!(second["cache"]["misses"], 0);
    assert_eq!(second["cache"]["caches"][0]["cache"], "dir:cache");
    assert_eq!(second["cache"]["caches"][0]["exported"], layers);
    assert_eq!(second["images"][0]["layers"][0]["cached"], true);
    stage.done(&["check", "oci:second:new"]);

    let third = stage.done(&[
        "convert",
        &stage.from,
        "oci:third:new",
        "--cache",
        "dir:cache",
    ]);
    let (out, words) = (
        String::from_utf8(third.stdout).unwrap(),
        String::from_utf8(third.stderr).unwrap(),
    );
    assert!(out.contains("1 (cached)"), "{out}");
    assert!(
        out.contains(&format!("{layers} layers cached, 0 packed")),
        "{out}"
    );
    assert!(words.contains("layer 1: cached"), "{words}");
}

#[test]
fn a_cache_that_fails_is_a_warning() {
    let stage = Stage::new();
    fs_err::write(stage.scratch.join("file"), b"no directory").unwrap();
    let to = "oci:image:new";
    let output = stage.done(&["convert", &stage.from, to, "--cache", "dir:file"]);
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(
        words.contains("WARN") && words.contains("dir:file"),
        "{words}"
    );
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.contains("cache dir:file: warning: "), "{out}");
    stage.done(&["check", to]);
}

#[test]
fn what_can_be_no_cache_is_refused_at_once() {
    let stage = Stage::new();
    for args in [
        ["--cache", "nowhere"],
        ["--cache", "registry:"],
        ["--cache-size", "0"],
        ["--cache-size", "100000"],
    ] {
        let convert = ["convert", &stage.from, "oci:image:new"];
        let output = stage.draught(&[&convert[..], &args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
    assert!(!stage.scratch.join("image").exists());
}
