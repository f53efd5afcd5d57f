//! A kernel EROFS on top of a file that is served.

use std::process::Command;
use std::sync::Arc;

use draught_mount::Detached;
use draught_testkit::compare::{assert_same, snapshot_dir};
use draught_testkit::{MountGuard, Scratch, need, process};

use crate::mirror::Mirror;
use crate::served::{Served, write_file};

#[test]
fn an_image_in_a_served_file_can_be_mounted() {
    if !need::root() || !need::filesystem("erofs") {
        return;
    }
    let Some(mkfs) = need::tool("mkfs.erofs") else {
        return;
    };
    let (content, images) = (Scratch::new(), Scratch::new());
    for seed in 1..20 {
        let len = usize::try_from(seed).unwrap() * 77_777;
        write_file(&content.join(format!("{seed}")), len, seed);
    }
    process::run(
        Command::new(mkfs)
            .arg(images.join("image"))
            .arg(content.path()),
    );
    for is_final in [true, false] {
        let mut mirror = Mirror::of(images.path());
        mirror.is_final = is_final;
        let served = Served::start(Arc::new(mirror));
        let on_top = Scratch::new();
        let dir = on_top.dir("erofs");
        let mount = Detached::mount(&served.join("image"), &[]).unwrap();
        mount.attach(&dir).unwrap();
        let guard = MountGuard::adopt(&dir);
        assert_same(&snapshot_dir(&dir), &snapshot_dir(content.path()));
        drop(guard);
    }
}
