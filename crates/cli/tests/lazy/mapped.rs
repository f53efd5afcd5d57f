//! What happened to a mounted image can be looked at.

use crate::harness::{Stage, succeed};

#[test]
fn the_map_of_an_image_shows_what_was_read_and_waited_for() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    succeed(&stage.mount());
    let largest = stage
        .readable()
        .into_iter()
        .max_by_key(|name| stage.files[*name].len());
    let largest = largest.unwrap().to_owned();
    assert!(stage.read(&largest).unwrap());
    let reference = stage.reference();

    let text = succeed(&stage.draught(&["map", &reference, "-o", "-", "--format", "json"]));
    let trace: serde_json::Value = serde_json::from_str(&text).unwrap();
    let waits = trace["faults"].as_array().unwrap();
    assert!(
        waits.iter().any(|wait| wait["path"] == largest.as_str()),
        "{waits:?}"
    );
    let areas = trace["areas"].as_array().unwrap();
    let area = areas
        .iter()
        .find(|area| area["path"] == largest.as_str())
        .unwrap();
    assert!(area["touched_at_ms"].is_u64(), "{area}");

    let file = stage.scratch.join("map.svg");
    let written = stage.draught(&["map", &reference, "-o", file.to_str().unwrap()]);
    assert_eq!(succeed(&written), "");
    let picture = fs_err::read_to_string(&file).unwrap();
    let document = roxmltree::Document::parse(&picture).unwrap();
    let texts = document.descendants().filter_map(|node| node.text());
    assert!(
        texts.into_iter().any(|text| text.contains(&largest)),
        "{picture}"
    );

    let nowhere = stage.scratch.join("no/map.svg");
    let failed = stage.draught(&["map", &reference, "-o", nowhere.to_str().unwrap()]);
    let message = String::from_utf8_lossy(&failed.stderr);
    assert_eq!(failed.status.code(), Some(1), "{message}");
    assert!(message.contains(nowhere.to_str().unwrap()), "{message}");
    succeed(&stage.umount());
}
