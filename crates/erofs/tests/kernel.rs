//! What is written here, the kernel serves, and erofs-utils find nothing wrong with it.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::process::Command;

use draught_erofs::{Options, Place, Placement, write};
use draught_testkit::{Scratch, erofs, facts, need, process};
use draught_tree::EntryKind;

mod support;
use support::{Maker, everything, meta};

fn image(maker: &Maker, placement: &Placement) -> Vec<u8> {
    let mut image = Vec::new();
    let summary = write(&maker.tree, placement, &Options::default(), &mut image).unwrap();
    assert_eq!(summary.bytes, u64::try_from(image.len()).unwrap());
    image
}

fn check(maker: &Maker) {
    if !need::root() || !need::filesystem("erofs") {
        return;
    }
    let Some(fsck) = need::tool("fsck.erofs") else {
        return;
    };
    let scratch = Scratch::new();
    let devices = maker.write_devices(scratch.path());
    let image_path = scratch.join("image");
    let placement = Placement::of_blobs(&maker.tree.map);
    fs_err::write(&image_path, image(maker, &placement)).unwrap();

    let dir = scratch.dir("mounted");
    let guard = erofs::mount(&image_path, &devices, &dir).unwrap();
    let served = facts::of_directory(&dir);
    let expected = facts::of_tree(&maker.tree, &|chunk| maker.content(chunk));
    facts::assert_same(&served, &expected);
    drop(guard);

    let mut command = Command::new(fsck);
    for device in &devices {
        command.arg(format!("--device={}", device.display()));
    }
    process::run(command.arg("--extract").arg(&image_path));
}

#[test]
fn the_kernel_serves_everything_that_a_tree_can_say() {
    check(&everything(2));
}

#[test]
fn the_kernel_serves_120_devices() {
    let mut maker = Maker::new(120);
    for device in 0..120 {
        maker.file(
            format!("file{device}"),
            meta(0o644),
            &[(device, 5000), (119 - device, 10)][..1],
        );
        maker.file(
            format!("both{device}"),
            meta(0o644),
            &[(device, 8192), (119 - device, 10)],
        );
    }
    check(&maker);
}

#[test]
fn the_kernel_serves_a_tree_without_devices() {
    let mut maker = Maker::new(0);
    maker.add("a/b", meta(0o644), EntryKind::Directory);
    maker.add("c", meta(0o644), EntryKind::Symlink(b"a"[..].into()));
    check(&maker);
}

#[test]
fn holes_read_as_zeros_between_data() {
    if !need::root() || !need::filesystem("erofs") {
        return;
    }
    let mut maker = Maker::new(1);
    let mut chunks = Vec::new();
    let mut expected = Vec::new();
    let mut holes = Vec::new();
    for at in 0..40 {
        let id = maker.chunk(0, if at == 39 { 100 } else { 16384 });
        let content = maker.content(maker.tree.map.chunk(id).unwrap());
        if at % 3 == 1 || at == 39 {
            holes.push(id);
            expected.extend_from_slice(&vec![0; content.len()]);
        } else {
            expected.extend_from_slice(&content);
        }
        chunks.push(id);
    }
    maker.file_of("sparse", meta(0o644), &chunks);
    maker.file_of("hole", meta(0o644), &holes[..1]);
    let mut placement = Placement::of_blobs(&maker.tree.map);
    for hole in holes {
        placement.places[hole.index()] = Place::Hole;
    }
    let scratch = Scratch::new();
    let devices = maker.write_devices(scratch.path());
    let image_path = scratch.join("image");
    fs_err::write(&image_path, image(&maker, &placement)).unwrap();
    let dir = scratch.dir("mounted");
    let _guard = erofs::mount(&image_path, &devices, &dir).unwrap();
    assert_eq!(fs_err::read(dir.join("sparse")).unwrap(), expected);
    assert_eq!(fs_err::read(dir.join("hole")).unwrap(), vec![0; 16384]);
}

#[test]
fn the_kernel_refuses_an_image_with_a_flipped_bit_in_its_superblock() {
    if !need::root() || !need::filesystem("erofs") {
        return;
    }
    let maker = Maker::new(0);
    let mut image = image(&maker, &Placement::default());
    image[1024 + 80] ^= 1;
    let scratch = Scratch::new();
    let image_path = scratch.join("image");
    fs_err::write(&image_path, image).unwrap();
    assert!(erofs::mount(&image_path, &[], &scratch.dir("mounted")).is_err());
}
