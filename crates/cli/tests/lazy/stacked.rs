//! Several mounts, of one image or on one directory.

use std::process::Command;

use draught_testkit::{MountGuard, need};

use crate::harness::{Stage, eventually, succeed};

/// How often a directory is mounted in the table of mounts.
fn times_mounted(stage: &Stage) -> usize {
    let mounts = fs_err::read_to_string("/proc/self/mounts").unwrap();
    let dir = stage.mountpoint.to_str().unwrap();
    let here = |line: &&str| line.split(' ').nth(1) == Some(dir);
    mounts.lines().filter(here).count()
}

#[test]
fn who_mounts_what_is_being_mounted_gets_the_same_mount() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| succeed(&stage.mount()));
        }
    });
    assert_eq!(times_mounted(&stage), 1);
    assert_eq!(stage.status()["mounts"].as_array().unwrap().len(), 1);
    succeed(&stage.umount());
    assert_eq!(times_mounted(&stage), 0);
}

#[test]
fn what_others_mounted_on_top_is_not_unmounted() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    succeed(&stage.mount());
    let on_top = MountGuard::run(
        Command::new("mount")
            .args(["-t", "tmpfs", "none"])
            .arg(&stage.mountpoint),
        &stage.mountpoint,
    );
    let refused = stage.umount();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("on top"));
    assert_eq!(times_mounted(&stage), 2);
    drop(on_top);
    stage.assert_all_right();
    succeed(&stage.umount());
}

#[test]
fn what_others_unmounted_is_not_listed_and_can_be_mounted_again() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    succeed(&stage.mount());
    succeed(
        &Command::new("umount")
            .arg(&stage.mountpoint)
            .output()
            .unwrap(),
    );
    eventually("it is noticed", || {
        stage.status()["mounts"].as_array().unwrap().is_empty()
    });
    succeed(&stage.mount());
    assert_eq!(stage.status()["mounts"].as_array().unwrap().len(), 1);
    stage.assert_all_right();
}

#[test]
fn a_mount_in_another_namespace_is_served_though_its_image_is_mounted_and_unmounted_again() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    if need::tool("unshare").is_none() {
        return;
    }
    stage.start(&[]);
    succeed(&stage.mount());
    let names = stage.readable();
    let mut other = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .args(["read line; cat \"$1\"", "sh"])
        .arg(stage.path(names[0]))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let comm = format!("/proc/{}/comm", other.id());
    eventually("the shell runs", || {
        fs_err::read_to_string(&comm).is_ok_and(|comm| comm.trim() == "sh")
    });
    succeed(&stage.umount());
    succeed(&stage.mount());
    succeed(&stage.umount());
    std::io::Write::write_all(&mut other.stdin.take().unwrap(), b"go\n").unwrap();
    let output = other.wait_with_output().unwrap();
    assert!(
        output.stdout == stage.files[names[0]],
        "wrong bytes in the other namespace"
    );
}

#[test]
fn mounting_again_and_again_beside_another_mount_takes_no_more_descriptors() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    succeed(&stage.mount());
    let dir = stage.scratch.dir("again");
    let dir = dir.to_str().unwrap();
    let again = || {
        succeed(&stage.draught(&["mount", &stage.reference(), dir]));
        succeed(&stage.draught(&["umount", dir]));
    };
    again();
    let worker = stage.status()["worker_pid"].as_u64().unwrap();
    let descriptors = || {
        fs_err::read_dir(format!("/proc/{worker}/fd"))
            .unwrap()
            .count()
    };
    let before = descriptors();
    (0..30).for_each(|_| again());
    eventually("they are as many as before", || descriptors() <= before + 3);
    stage.assert_all_right();
}
