//! What others make of layers that are written here.

use std::path::Path;
use std::process::Command;

use draught_estargz::WriteOptions;
use draught_testkit::compare::{self, Snapshot};
use draught_testkit::images::{self, StoredLayer, write_stored_layout};
use draught_testkit::{Containerd, Scratch, need, process};
use serde_json::Value;

use crate::layers::expressible;
use crate::support::{Layer, applied, options, write};

/// The archives of an image's layers, decompressed by the system's tool, without what can't be expressed.
fn archives(layout: &Path) -> Vec<Vec<u8>> {
    let files = images::layer_files(layout).into_iter();
    files
        .map(|file| {
            let bytes = fs_err::read(&file).unwrap();
            if !bytes.starts_with(&[0x1f, 0x8b]) {
                return expressible(&bytes);
            }
            let output = Command::new("gzip").arg("-dc").arg(file).output().unwrap();
            assert!(output.status.success());
            expressible(&output.stdout)
        })
        .collect()
}

fn written(archives: &[Vec<u8>], options: &WriteOptions) -> Vec<Layer> {
    let layers = archives.iter().map(|archive| write(archive, options));
    layers.collect::<Result<_, _>>().unwrap()
}

/// An OCI layout of these layers.
fn layout(layers: &[Layer], dir: &Path) {
    let stored = layers.iter().map(|layer| StoredLayer {
        blob: layer.blob.clone(),
        diff_id: layer.written.diff_id,
        annotations: vec![
            (
                "containerd.io/snapshot/stargz/toc.digest",
                layer.written.toc_digest.to_string(),
            ),
            (
                "io.containers.estargz.uncompressed-size",
                layer.written.uncompressed_bytes.to_string(),
            ),
        ],
    });
    write_stored_layout(dir, &stored.collect::<Vec<_>>()).unwrap();
}

/// What umoci makes of it.
fn unpacked(layout: &Path, scratch: &Scratch) -> Snapshot {
    let bundle = scratch.join("bundle");
    let mut image = layout.as_os_str().to_owned();
    image.push(":latest");
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--image"]).arg(image).arg(&bundle);
    process::run(&mut umoci);
    compare::snapshot_dir(&bundle.join("rootfs"))
}

fn check_unpacked(image: &Path, options: &WriteOptions) {
    if need::tool("umoci").filter(|_| need::root()).is_none() {
        return;
    }
    let archives = archives(image);
    let scratch = Scratch::new();
    let made = scratch.join("layout");
    layout(&written(&archives, options), &made);
    // What there is for readers of the table is there for those who unpack as well.
    let mut got = unpacked(&made, &scratch);
    assert!(got.remove(&b"/stargz.index.json"[..]).is_some());
    got.remove(&b"/.prefetch.landmark"[..]);
    got.remove(&b"/.no.prefetch.landmark"[..]);
    let mut expected = applied(&archives).unwrap();
    // These were put into it last.
    let root = got.get_mut(&b"/"[..]).unwrap();
    let expected_root = expected.get_mut(&b"/"[..]).unwrap();
    expected_root.mtime = root.mtime;
    compare::assert_same(&got, &expected);
}

#[test]
fn every_kind_of_entry_and_every_trick_of_layers_is_what_umoci_makes_of_it() {
    let wanted = [
        "sizes/2500000",
        "kinds/link-link",
        "twice/kept",
        "opaque/after",
    ];
    let prefetched = WriteOptions {
        prefetch: wanted.map(|path| path.as_bytes().to_vec()).to_vec(),
        pack_bytes: 1 << 20,
        ..WriteOptions::default()
    };
    for options in [options(), prefetched] {
        check_unpacked(&images::torture(), &options);
    }
}

#[test]
fn a_distribution_is_what_umoci_makes_of_it() {
    if let Some(image) = images::minbase() {
        check_unpacked(&image, &WriteOptions::default());
    }
}

#[test]
fn what_a_builder_stacked_is_what_umoci_makes_of_it() {
    if let Some(image) = images::python() {
        let wanted = ["usr/bin/python3.11", "app/hard"];
        let prefetched = WriteOptions {
            prefetch: wanted.map(|path| path.as_bytes().to_vec()).to_vec(),
            ..WriteOptions::default()
        };
        check_unpacked(&image, &prefetched);
    }
}

/// The format's own tool opens what containerd has: it finds the footer and reads the table.
#[test]
fn the_format_s_own_tool_reads_the_table() {
    if need::tool("ctr-remote").is_none() {
        return;
    }
    let Some(containerd) = Containerd::start(&[]) else {
        return;
    };
    let wanted = WriteOptions {
        prefetch: vec![b"kinds/file".to_vec()],
        ..options()
    };
    let archives = archives(&images::torture());
    for options in [options(), wanted] {
        let layers = written(&archives, &options);
        let scratch = Scratch::new();
        let made = scratch.join("layout");
        layout(&layers, &made);
        let archive = scratch.join("image.tar");
        let mut pack = Command::new("tar");
        pack.arg("-cf").arg(&archive).arg("-C").arg(&made).arg(".");
        process::run(&mut pack);
        let mut import = containerd.ctr();
        import.args([
            "images",
            "import",
            "--no-unpack",
            "--index-name",
            "localhost/it:1",
        ]);
        process::run(import.arg(&archive));
        for layer in &layers {
            let mut ask = containerd.client("ctr-remote");
            ask.args(["images", "get-toc-digest"]);
            let digest = draught_digest::Digest::sha256(&layer.blob).to_string();
            let said = process::run(ask.arg(&digest));
            assert_eq!(said.trim(), layer.written.toc_digest.to_string());
            let mut dump = containerd.client("ctr-remote");
            dump.args(["images", "get-toc-digest", "--dump-toc"]);
            let document: Value = serde_json::from_str(&process::run(dump.arg(&digest))).unwrap();
            let expected = layer.toc().len();
            assert_eq!(document["entries"].as_array().unwrap().len(), expected);
        }
    }
}
