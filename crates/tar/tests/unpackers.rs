//! Layers applied to a tree are what umoci unpacks from them.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use draught_testkit::compare::{self, Applied, Snapshot};
use draught_testkit::{Scratch, images, need, process};

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
