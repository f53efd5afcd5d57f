//! A state directory on a disk that loses what was written to it.

use std::process::Command;

use draught_testkit::{MountGuard, need};

use crate::harness::{Stage, eventually, succeed};

/// Reads all files: each is right, or there is an error. Gives the number of errors.
fn errors(stage: &Stage, names: &[&str]) -> usize {
    let mut failed = 0;
    for name in names {
        match stage.read(name) {
            Ok(same) => assert!(same, "{name} has wrong bytes"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(5), "{name}");
                failed += 1;
            }
        }
    }
    failed
}

#[test]
fn what_a_failing_disk_lost_is_fetched_again_once_it_is_repaired() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    if need::tool("mkfs.ext4").is_none() {
        return;
    }
    // A disk that claims 200 MB and can hold 12.
    let backing = stage.scratch.dir("backing");
    let small = MountGuard::run(
        Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=12m", "none"])
            .arg(&backing),
        &backing,
    );
    let image = backing.join("disk.ext4");
    succeed(
        &Command::new("truncate")
            .args(["-s", "200M"])
            .arg(&image)
            .output()
            .unwrap(),
    );
    let mkfs = [
        "-q",
        "-O",
        "^has_journal",
        "-E",
        "lazy_itable_init=1",
        "-N",
        "512",
    ];
    succeed(
        &Command::new("mkfs.ext4")
            .args(mkfs)
            .arg(&image)
            .output()
            .unwrap(),
    );
    let root = stage.scratch.dir("root");
    let disk = MountGuard::run(
        Command::new("mount")
            .args(["-o", "loop,errors=continue"])
            .arg(&image)
            .arg(&root),
        &root,
    );
    stage.start(&[]);
    succeed(&stage.mount());
    let names = stage.readable();
    eventually("the disk has failed", || {
        errors(&stage, &names);
        let log = stage.log();
        log.contains("could not be made durable") || log.contains("is not durable")
    });
    succeed(
        &Command::new("mount")
            .args(["-o", "remount,size=400m"])
            .arg(&backing)
            .output()
            .unwrap(),
    );
    eventually("the device is used again", || {
        stage.log().contains("is used again") && errors(&stage, &names) == 0
    });
    stage.assert_all_right();
    succeed(&stage.umount());
    succeed(&stage.draught(&["daemon", "--stop"]));
    drop(disk);
    drop(small);
}
