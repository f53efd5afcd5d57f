//! Images that nydus' own `nydus-image` packed.

use std::io::Write as _;
use std::path::Path;

use draught_digest::Digest;
use draught_oci::{Descriptor, Document, Manifest};
use draught_testkit::need;
use draught_tree::{Entry, EntryKind, Meta};

use crate::harness::{Stage, UNREAD, read_range, succeed};

#[test]
fn what_nydus_packed_is_mounted_and_read_and_checked() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let Some(nydus) = need::nydus() else { return };
    stage.start(&[]);
    let rootfs = stage.scratch.join("rootfs");
    for (number, args) in [
        &["--compressor", "zstd"][..],
        &["--compressor", "lz4_block", "--digester", "sha256"],
        &["--compressor", "none", "--chunk-size", "0x10000"],
    ]
    .into_iter()
    .enumerate()
    {
        let created = nydus.create(&rootfs, &stage.scratch.dir(format!("made-{number}")), args);
        let layout = stage.scratch.dir(format!("foreign-{number}"));
        write_image(&layout, &created.blobs, &created.bootstrap);
        let reference = format!("oci:{}", layout.display());
        succeed(&stage.draught(&["check", &reference]));
        let dir = stage.scratch.dir(format!("mounted-{number}"));
        succeed(&stage.draught(&["mount", &reference, dir.to_str().unwrap()]));
        for (name, content) in stage.files.iter().filter(|(name, _)| *name != UNREAD) {
            let read = read_range(&dir.join(name), 0, content.len()).unwrap();
            assert!(read == *content, "{args:?}: {name} has other bytes");
        }
        succeed(&stage.draught(&["umount", dir.to_str().unwrap()]));
    }
}

/// Puts what nydus made into an OCI layout, as its converters do.
fn write_image(layout: &Path, blobs: &Path, bootstrap: &Path) {
    let store = layout.join("blobs/sha256");
    fs_err::create_dir_all(&store).unwrap();
    let put = |media_type: &str, bytes: &[u8]| {
        let descriptor = Descriptor::new(media_type, Digest::sha256(bytes), bytes.len() as u64);
        fs_err::write(store.join(descriptor.digest.hex()), bytes).unwrap();
        descriptor
    };
    let mut layers = Vec::new();
    for entry in fs_err::read_dir(blobs).unwrap() {
        let bytes = fs_err::read(entry.unwrap().path()).unwrap();
        let blob = put("application/vnd.oci.image.layer.nydus.blob.v1", &bytes);
        layers.push(blob.with_annotation("containerd.io/snapshot/nydus-blob", "true"));
    }
    let bootstrap = put(
        "application/vnd.oci.image.layer.v1.tar+gzip",
        &metadata_layer(&fs_err::read(bootstrap).unwrap()),
    );
    layers.push(
        bootstrap
            .with_annotation("containerd.io/snapshot/nydus-bootstrap", "true")
            .with_annotation("containerd.io/snapshot/nydus-fs-version", "6"),
    );
    // Which diffID a lazy layer has is told nowhere but in the configuration, and nobody reads it.
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| layer.digest.to_string())
        .collect();
    let config = serde_json::json!({
        "architecture": draught_oci::Platform::host().architecture(),
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = put(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let manifest = Document::write(Manifest::new(config, layers));
    let written = put(&manifest.descriptor().media_type, manifest.bytes());
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": written.media_type,
        "digest": written.digest.to_string(),
        "size": written.size,
    }] });
    fs_err::write(layout.join("index.json"), index.to_string()).unwrap();
    fs_err::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
}

fn metadata_layer(bootstrap: &[u8]) -> Vec<u8> {
    let mut writer = draught_tar::Writer::new(Vec::new());
    let entry = Entry {
        path: b"image/image.boot".as_slice().into(),
        meta: Meta {
            mode: 0o644,
            ..Meta::default()
        },
        kind: EntryKind::File {
            bytes: bootstrap.len() as u64,
            chunks: Box::default(),
        },
    };
    writer.entry(&entry).unwrap();
    writer.data(bootstrap).unwrap();
    let archive = writer.finish().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive).unwrap();
    gzip.finish().unwrap()
}
