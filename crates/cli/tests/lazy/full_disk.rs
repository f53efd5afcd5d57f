//! A state directory on a filesystem that fills up.

use std::path::Path;
use std::process::Command;

use draught_testkit::{MountGuard, need};

use crate::harness::{Stage, eventually, succeed};

/// Size of the filesystem: smaller than the image.
const FILESYSTEM: &str = "40M";

fn small_filesystem(stage: &Stage, dir: &Path) -> Option<MountGuard> {
    need::tool("mkfs.ext4")?;
    let image = stage.scratch.join("small.ext4");
    succeed(
        &Command::new("truncate")
            .arg("-s")
            .arg(FILESYSTEM)
            .arg(&image)
            .output()
            .unwrap(),
    );
    succeed(
        &Command::new("mkfs.ext4")
            .arg("-q")
            .arg(&image)
            .output()
            .unwrap(),
    );
    Some(MountGuard::run(
        Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(dir),
        dir,
    ))
}

#[test]
fn a_full_disk_is_an_error_and_what_is_present_stays_readable() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let root = stage.scratch.dir("root");
    let Some(small) = small_filesystem(&stage, &root) else {
        return;
    };
    stage.start(&[]);
    succeed(&stage.mount());
    let names = stage.readable();
    let present = &names[..5];
    present
        .iter()
        .for_each(|file| assert!(stage.read(file).unwrap()));
    // All that is left, to the last block.
    let filler = root.join("filler");
    let filled = Command::new("dd")
        .args(["if=/dev/zero", "bs=4096"])
        .arg(format!("of={}", filler.display()))
        .output();
    assert!(
        !filled.unwrap().status.success(),
        "the filesystem did not fill up"
    );
    let failed: Vec<&str> = names
        .iter()
        .copied()
        .filter(|file| stage.read(file).is_err())
        .collect();
    assert!(!failed.is_empty(), "everything was read on a full disk");
    for file in &failed {
        assert_eq!(
            stage.read(file).unwrap_err().raw_os_error(),
            Some(5),
            "{file}"
        );
    }
    let status = stage.status();
    let error = status["mounts"][0]["last_error"].as_str().unwrap();
    assert!(error.contains("space"), "{error}");
    present
        .iter()
        .for_each(|file| assert!(stage.read(file).unwrap(), "{file}"));
    fs_err::remove_file(&filler).unwrap();
    eventually("there is room again", || stage.read(failed[0]).is_ok());
    present
        .iter()
        .for_each(|file| assert!(stage.read(file).unwrap(), "{file}"));
    succeed(&stage.umount());
    succeed(&stage.draught(&["daemon", "--stop"]));
    drop(small);
}
