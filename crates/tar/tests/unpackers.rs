//! Layers applied to a tree are what umoci unpacks from them.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::Read;
use std::path::{Path, PathBuf};
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

/// The blobs of an image's layers, decompressed by the system's tools.
fn layers(layout: &Path) -> Vec<Box<dyn Read>> {
    let blob = |digest: &str| {
        layout
            .join("blobs/sha256")
            .join(digest.split_once(':').unwrap().1)
    };
    let json = |path: PathBuf| -> serde_json::Value {
        serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
    };
    let index = json(layout.join("index.json"));
    let manifest = json(blob(index["manifests"][0]["digest"].as_str().unwrap()));
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers
        .map(|layer| {
            let path = blob(layer["digest"].as_str().unwrap());
            let decoder = match layer["mediaType"].as_str().unwrap() {
                gzip if gzip.ends_with("gzip") => "gzip",
                _ => "cat",
            };
            let args: &[&str] = if decoder == "gzip" { &["-dc"] } else { &[] };
            let output = Command::new(decoder).args(args).arg(path).output().unwrap();
            assert!(output.status.success());
            Box::new(std::io::Cursor::new(output.stdout)) as Box<dyn Read>
        })
        .collect()
}

fn applied(layout: &Path) -> Snapshot {
    let mut applied = Applied::default();
    for layer in layers(layout) {
        applied.layer(layer).unwrap();
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
