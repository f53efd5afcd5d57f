//! What a start touches is known afterwards, here and on other nodes.

use std::path::Path;

use crate::harness::{Stage, eventually, read_range, succeed};
use crate::shared::{convert, mount, status_of, umount};

/// What the "program" of these tests reads, in this order.
fn start(stage: &Stage, dir: &Path) {
    for name in stage.readable().iter().rev().step_by(7) {
        let read = read_range(&dir.join(name), 0, stage.files[*name].len()).unwrap();
        assert!(read == stage.files[*name], "{name} has other bytes");
    }
}

/// A state directory of another node.
fn clear_node(stage: &Stage) {
    succeed(&stage.draught(&["daemon", "--stop"]));
    fs_err::remove_dir_all(stage.root()).unwrap();
}

#[test]
fn a_start_on_another_node_waits_for_nothing_with_the_profile_of_the_first() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    let dir = mount(&stage, &stage.reference(), "one");
    let nothing = stage.draught(&["profile", "export", &stage.reference()]);
    assert!(!nothing.status.success());
    start(&stage, &dir);
    let cold = status_of(&stage, &dir);
    assert!(cold["faults"].as_u64().unwrap() > 10, "{cold}");
    let file = stage.scratch.join("start.profile");
    let file = file.to_str().unwrap();
    succeed(&stage.draught(&["profile", "export", &stage.reference(), "-o", file]));
    let text = fs_err::read_to_string(file).unwrap();
    let first = stage.readable().last().unwrap().to_owned().to_owned();
    assert!(text.lines().nth(1).unwrap().contains(&first), "{text}");
    umount(&stage, &dir);

    clear_node(&stage);
    stage.start(&[]);
    succeed(&stage.draught(&["profile", "import", &stage.reference(), file]));
    let dir = mount(&stage, &stage.reference(), "two");
    let names = stage.readable();
    let bytes: usize = names
        .iter()
        .rev()
        .step_by(7)
        .map(|name| stage.files[*name].len())
        .sum();
    eventually("what the start touches is there", || {
        status_of(&stage, &dir)["bytes_present"].as_u64().unwrap() >= bytes as u64
    });
    let before = status_of(&stage, &dir);
    start(&stage, &dir);
    let after = status_of(&stage, &dir);
    assert_eq!(after["faults"], before["faults"], "{after}");
    assert_eq!(after["requests"], before["requests"], "{after}");
    // And in fewer requests than without.
    let (requests, cold) = (after["requests"].as_u64(), cold["requests"].as_u64());
    assert!(requests.unwrap() < cold.unwrap(), "{after} after {cold:?}");
    umount(&stage, &dir);
}

#[test]
fn a_profile_that_is_none_is_refused_by_name() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    let file = stage.scratch.join("bad.profile");
    fs_err::write(&file, "{\"draught_profile\":99,\"reference\":\"x\"}\n").unwrap();
    let refused = stage.draught(&[
        "profile",
        "import",
        &stage.reference(),
        file.to_str().unwrap(),
    ]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && message.contains("profile"),
        "{message}"
    );
}

#[test]
fn everything_is_fetched_in_the_background_if_asked_for_and_readers_come_first() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    let dir = stage.scratch.dir("all");
    succeed(&stage.draught(&[
        "mount",
        "--prefetch",
        "all",
        &stage.reference(),
        dir.to_str().unwrap(),
    ]));
    start(&stage, &dir);
    eventually("all of it is there", || {
        status_of(&stage, &dir)["lazy"] == false
    });
    let status = status_of(&stage, &dir);
    assert_eq!(status["bytes_present"], status["bytes_total"], "{status}");
    umount(&stage, &dir);
}

#[test]
fn a_profile_that_was_written_into_an_image_is_prefetched_on_every_node() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    let dir = mount(&stage, &stage.reference(), "one");
    start(&stage, &dir);
    let file = stage.scratch.join("start.profile");
    let file = file.to_str().unwrap();
    succeed(&stage.draught(&["profile", "export", &stage.reference(), "-o", file]));
    umount(&stage, &dir);
    let reference = stage.registry.reference("with-table:1");
    let rootfs = format!("dir:{}", stage.scratch.join("rootfs").display());
    succeed(&stage.draught(&["convert", "--prefetch", file, &rootfs, &reference]));
    let text = succeed(&stage.draught(&["inspect", "--format", "json", &reference]));
    let image: serde_json::Value = serde_json::from_str(&text).unwrap();
    let names = stage.readable().into_iter().rev().step_by(7);
    let touched: Vec<String> = names.map(str::to_owned).collect();
    let content = &image["images"][0]["content"];
    assert_eq!(content["prefetch"], touched.len(), "{content}");
    succeed(&stage.draught(&["check", &reference]));

    clear_node(&stage);
    stage.start(&[]);
    let dir = mount(&stage, &reference, "two");
    let bytes: usize = touched.iter().map(|name| stage.files[name].len()).sum();
    eventually("what the start touches is there", || {
        status_of(&stage, &dir)["bytes_present"].as_u64().unwrap() >= bytes as u64
    });
    let before = status_of(&stage, &dir);
    start(&stage, &dir);
    let after = status_of(&stage, &dir);
    assert_eq!(after["faults"], before["faults"], "{after}");
    // In a few large requests, not in one for each file.
    let requests = after["requests"].as_u64().unwrap();
    assert!(requests < touched.len() as u64, "{after}");
    // What is none is refused before anything is written.
    let bad = stage.scratch.join("bad.profile");
    fs_err::write(&bad, "usr/bin/python3\n").unwrap();
    let target = stage.registry.reference("refused:1");
    let refused = stage.draught(&[
        "convert",
        "--prefetch",
        bad.to_str().unwrap(),
        &rootfs,
        &target,
    ]);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("bad.profile"), "{said}");
    assert!(!stage.draught(&["inspect", &target]).status.success());
}

#[test]
fn what_was_read_before_a_second_image_came_is_recorded_for_the_first() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let other = stage.registry.reference("other:1");
    convert(
        &stage,
        &stage.files,
        &["--compressor", "lz4", "--chunk-size", "64KiB"],
        &other,
    );
    stage.start(&[]);
    let first = mount(&stage, &stage.reference(), "one");
    start(&stage, &first);
    // At once, and on the same devices.
    let _second = mount(&stage, &other, "two");
    let text = succeed(&stage.draught(&["profile", "export", &stage.reference()]));
    let touched = stage.readable().iter().rev().step_by(7).count();
    assert!(text.lines().count() > touched, "{text}");
    let nothing = stage.draught(&["profile", "export", &other]);
    assert!(!nothing.status.success(), "{nothing:?}");
}
