//! Layers applied to a tree are what umoci unpacks from them.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::Path;
use std::process::Command;

use draught_tar::Writer;
use draught_testkit::compare::{self, Applied, Snapshot};
use draught_testkit::images::{Layer, Packing, write_layout};
use draught_testkit::{Scratch, images, need, process};
use draught_tree::{Entry, EntryKind, Meta};

/// What umoci makes of an image.
fn unpacked(umoci: &Path, layout: &Path, scratch: &Scratch) -> Snapshot {
    let bundle = scratch.join("bundle");
    let mut image = layout.as_os_str().to_owned();
    image.push(":latest");
    process::run(
        Command::new(umoci)
            .args(["unpack", "--image"])
            .arg(image)
            .arg(&bundle),
    );
    compare::snapshot_dir(&bundle.join("rootfs"))
}

/// The archives of an image's layers, decompressed by the system's tool.
fn layers(layout: &Path) -> Vec<Vec<u8>> {
    let files = images::layer_files(layout).into_iter();
    files
        .map(|file| {
            let bytes = fs_err::read(&file).unwrap();
            if !bytes.starts_with(&[0x1f, 0x8b]) {
                return bytes;
            }
            let output = Command::new("gzip").arg("-dc").arg(file).output().unwrap();
            assert!(output.status.success());
            output.stdout
        })
        .collect()
}

fn applied(layout: &Path) -> Snapshot {
    let mut applied = Applied::default();
    for layer in layers(layout) {
        applied.layer(&layer[..]).unwrap();
    }
    applied.snapshot()
}

fn check(layout: &Path) {
    let Some(umoci) = need::tool("umoci").filter(|_| need::root()) else {
        return;
    };
    let scratch = Scratch::new();
    compare::assert_same(&applied(layout), &unpacked(&umoci, layout, &scratch));
}

#[test]
fn every_kind_of_entry_and_every_trick_of_layers_is_what_umoci_makes_of_it() {
    check(&images::torture());
}

#[test]
fn a_distribution_is_what_umoci_makes_of_it() {
    if let Some(layout) = images::minbase() {
        check(&layout);
    }
}

#[test]
fn what_a_builder_stacked_is_what_umoci_makes_of_it() {
    if let Some(layout) = images::python() {
        check(&layout);
    }
}

#[test]
fn where_umoci_leaves_the_archive_we_do_not_follow() {
    let Some(umoci) = need::tool("umoci").filter(|_| need::root()) else {
        return;
    };
    let mut writer = Writer::new(Vec::new());
    let mut add = |path: &str, kind, xattr: Option<(&str, &[u8])>| {
        let xattrs = xattr.map(|(name, value)| (name.as_bytes().into(), value.into()));
        let meta = Meta {
            mode: 0o755,
            mtime: 5,
            xattrs: xattrs.into_iter().collect(),
            ..Meta::default()
        };
        let path = path.as_bytes().into();
        writer.entry(&Entry { path, meta, kind }).unwrap();
    };
    let file = || EntryKind::File {
        bytes: 0,
        chunks: Box::default(),
    };
    add("./", EntryKind::Directory, None);
    add("empty-attribute", file(), Some(("user.empty", b"")));
    add(
        "label",
        file(),
        Some(("security.selinux", b"a_u:b_r:c_t:s0\0")),
    );
    add("implied/parent/file", file(), None);
    let archive = writer.finish().unwrap();

    let scratch = Scratch::new();
    let layout = scratch.join("layout");
    let layer = Layer {
        archive: Box::new(&archive[..]),
        packing: Packing::Tar,
    };
    write_layout(&layout, vec![layer]).unwrap();
    let lines = compare::diff(&applied(&layout), &unpacked(&umoci, &layout, &scratch));
    let differ = |at: usize, start: &str| {
        assert!(lines[at].starts_with(start), "{lines:#?}");
    };
    // Go's tar takes an empty value for one that is taken back. containerd and GNU tar set it.
    differ(1, "/empty-attribute: xattrs is user.empty=");
    // Nothing says when these were changed. umoci takes the time of day, and does not restore that of
    // the directory in which it made them: no two trees alike.
    differ(0, "/: mtime is (5, 0)");
    differ(2, "/implied: mtime is (0, 0)");
    differ(3, "/implied/parent: mtime is (0, 0)");
    // umoci never sets labels, which belong to the host. The tree says what the image says.
    differ(4, "/label: xattrs is security.selinux=");
    assert_eq!(lines.len(), 5, "{lines:#?}");
}
