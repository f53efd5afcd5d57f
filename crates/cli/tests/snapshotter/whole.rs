//! Images of which everything comes to the node, or to containerd.

use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use draught_testkit::fault_proxy::Link;
use serde_json::Value;

use crate::stage::{BASE, Form, Stage, archive};

fn is_complete(stage: &Stage, reference: &str) -> bool {
    let mount = stage.mount_of(reference);
    mount["bytes_present"] == mount["bytes_total"]
}

#[track_caller]
fn materialize(stage: &Stage, reference: &str) -> Value {
    let socket = stage.containerd.socket();
    let socket = socket.to_str().unwrap();
    let args = [
        "materialize",
        reference,
        "--containerd",
        socket,
        "--format",
        "json",
    ];
    serde_json::from_str(&stage.draught(&args)).unwrap()
}

fn bytes_fetched(report: &Value) -> u64 {
    let fetched = report["fetched"].as_object().unwrap();
    let each = fetched.values();
    each.map(|amount| amount["bytes"].as_u64().unwrap()).sum()
}

#[track_caller]
fn assert_exports(stage: &Stage, reference: &str) {
    let archive = stage.scratch.join("exported.tar");
    stage.ctr(&["images", "export", archive.to_str().unwrap(), reference]);
}

#[test]
fn what_the_node_has_is_not_fetched_again_to_make_an_image_whole() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let base = archive(&stage.scratch, "base", BASE);
    let plain = stage.push("plain:1", &[(Form::Plain, &base)]);
    let nydus = stage.registry.reference("nydus:1");
    stage.draught(&["convert", &plain, &nydus]);
    stage.pull(&nydus);
    assert_eq!(stage.run(&nydus, "starts", "cat /data/which"), "base\n");
    stage.eventually(|| is_complete(&stage, &nydus));
    let report = materialize(&stage, &nydus);
    let from_store = report["from_store"]["bytes"].as_u64().unwrap();
    let blob = report["blobs"].as_array().unwrap().iter();
    let blob = blob.max_by_key(|blob| blob["bytes"].as_u64()).unwrap();
    let (digest, size) = (blob["digest"].as_str().unwrap(), &blob["bytes"]);
    let size = size.as_u64().unwrap();
    assert!(
        from_store > 3_000_000 && from_store * 10 > size * 9,
        "{report}"
    );
    assert_eq!(blob["store_bytes"], from_store, "{report}");
    assert!(bytes_fetched(&report) < size / 2, "{report}");
    assert_exports(&stage, &nydus);
    // What is wrong on the disk is noticed, and comes from the registry.
    stage.stop();
    let devices = fs_err::read_dir(stage.root().join("store/devices")).unwrap();
    for device in devices {
        let path = device.unwrap().path();
        if path.extension().is_some_and(|it| it == "data") {
            let file = fs_err::OpenOptions::new().write(true).open(&path).unwrap();
            let middle = file.metadata().unwrap().len() / 2 / 4096 * 4096;
            file.file().write_all_at(&[0x5A; 4096], middle).unwrap();
        }
    }
    stage.ctr(&["content", "rm", digest]);
    stage.ctr(&["leases", "create", "--id", "collect"]);
    stage.ctr(&["leases", "rm", "--sync", "collect"]);
    let report = materialize(&stage, &nydus);
    let less = report["from_store"]["bytes"].as_u64().unwrap();
    assert!(less > 0 && less < from_store, "{report}");
    let listed = stage.ctr(&["content", "ls", "--quiet"]);
    assert!(listed.lines().any(|line| line == digest), "{listed}");
    assert_exports(&stage, &nydus);
}

#[test]
fn readers_that_wait_for_one_thing_after_the_other_have_all_of_it_fetched() {
    let Some(stage) = Stage::new() else { return };
    let lazy = stage.push_large("slow:1");
    stage.registry.proxy().set_link(Link {
        round_trip: Duration::from_millis(300),
        bytes_per_s: None,
    });
    stage.pull(&lazy);
    let long = stage.run_long(&lazy);
    let is_enough = || stage.mount_of(&lazy)["prefetch_all"] == true;
    let mut number = 0;
    while !is_enough() && number < 3 {
        stage.assert_read(number, |command| stage.exec(&long, "e", command));
        number += 1;
    }
    assert!(is_enough(), "{}", stage.log());
    let why = "reads of it wait so long that all of it is fetched";
    assert_eq!(stage.logged(why).len(), 1, "{}", stage.log());
    // Also what nobody has read yet.
    stage.eventually(|| is_complete(&stage, &lazy));
    stage.registry.proxy().go_down();
    stage.assert_read(3, |command| stage.exec(&long, "last", command));
    stage.end_long(&long);
}

#[test]
fn a_small_image_is_asked_for_once() {
    let Some(stage) = Stage::new() else { return };
    let small = BASE.replace("3000000", "300000");
    let base = archive(&stage.scratch, "base", &small);
    let lazy = stage.push("small:1", &[(Form::Lazy, &base)]);
    let nydus = stage.registry.reference("small:2");
    stage.draught(&["convert", &lazy, &nydus]);
    for reference in [&lazy, &nydus] {
        stage.registry.proxy().reset_counts();
        stage.pull(reference);
        assert_eq!(stage.run(reference, "starts", "cat /data/which"), "base\n");
        stage.eventually(|| is_complete(&stage, reference));
        let counts = stage.registry.proxy().counts();
        for digest in stage.layers(reference).keys() {
            let log = stage.registry.proxy().log();
            assert_eq!(
                counts.matching("GET", digest).requests,
                1,
                "{digest} {log:#?}"
            );
        }
    }
}
