//! Many commands and many readers at once.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use draught_testkit::fault_proxy::{Fault, Rule};
use draught_testkit::need;

use crate::harness::{Stage, children, eventually, kill, succeed};

/// Commands that wait for a registry that never answers: more than the worker has threads to fill.
const HUNG_MOUNTS: usize = 24;
/// Readers at once.
const READERS: usize = 200;

#[test]
fn mounts_that_wait_for_their_registry_keep_no_reader_waiting() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    succeed(&stage.mount());
    let rule = stage
        .registry
        .proxy()
        .inject(Rule::new(Fault::Hang).on_path("/other/"));
    let other = stage.registry.reference("other:latest");
    let mut mounts: Vec<_> = (0..HUNG_MOUNTS)
        .map(|index| {
            let dir = stage.scratch.dir(format!("hung-{index}"));
            stage
                .command(&["mount", &other, dir.to_str().unwrap()])
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    stage.assert_all_right();
    let took = start.elapsed();
    need::say(&format!(
        "all read in {took:?} beside {HUNG_MOUNTS} hung mounts"
    ));
    for mount in &mut mounts {
        let _ended = mount.kill();
        mount.wait().unwrap();
    }
    stage.registry.proxy().lift(rule);
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn a_burst_of_readers_is_served_in_bounded_memory_and_the_killed_leave_nothing() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    succeed(&stage.mount());
    let worker = children(stage.keeper(), "draught-worker")[0];
    let descriptors = || {
        fs_err::read_dir(format!("/proc/{worker}/fd"))
            .unwrap()
            .count()
    };
    let before = descriptors();
    let slow = stage
        .registry
        .proxy()
        .inject(Rule::new(Fault::Delay(Duration::from_millis(300))).on_blobs());
    let paths: Vec<PathBuf> = stage
        .readable()
        .iter()
        .map(|name| stage.path(name))
        .collect();
    let mut readers: Vec<_> = (0..READERS)
        .map(|index| {
            Command::new("cat")
                .arg(&paths[index % paths.len()])
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    let most = descriptors();
    // Half of them are killed while they wait.
    readers
        .iter()
        .step_by(2)
        .for_each(|reader| kill(reader.id()));
    for (index, reader) in readers.iter_mut().enumerate() {
        let status = reader.wait().unwrap();
        assert!(index % 2 == 0 || status.success(), "{status}");
    }
    stage.registry.proxy().lift(slow);
    stage.assert_all_right();
    // But for connections to the registry, which are kept for a while: it looked far away, and got many.
    eventually("descriptors are as before", || descriptors() <= before + 32);
    let status = fs_err::read_to_string(format!("/proc/{worker}/status")).unwrap();
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    need::say(&format!("{READERS} readers: {most} descriptors, {peak}"));
    let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 200 << 10, "{peak}");
}
