//! Packed images as files, and the devices that they point into.
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "every test binary uses a part of it"
)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use draught_codec::Decoder;
use draught_packer::BootstrapLayer;
use draught_testkit::process;
use draught_tree::ChunkMap;

/// Writes a file.
pub(crate) fn copy(mut from: File, to: &Path) {
    let mut to = fs_err::File::create(to).unwrap();
    io::copy(&mut from, &mut to).unwrap();
}

/// Takes a bootstrap out of its layer, with tar, into a directory.
pub(crate) fn unwrap_bootstrap(layer: BootstrapLayer, out: &Path) -> PathBuf {
    let path = out.join("bootstrap.tar.gz");
    copy(layer.content.into_file().unwrap(), &path);
    let mut untar = Command::new("tar");
    process::run(untar.arg("-xzf").arg(&path).arg("-C").arg(out));
    out.join("image/image.boot")
}

/// The devices that a bootstrap points into, every chunk of the map in its place. The directory `blobs` has
/// the blobs, named by their digests.
pub(crate) fn devices(map: &ChunkMap, blobs: &Path, out: &Path) -> Vec<PathBuf> {
    let mut decoder = Decoder::new();
    let mut paths = Vec::new();
    let mut files = Vec::new();
    for (at, blob) in map.blobs.iter().enumerate() {
        let path = out.join(format!("device-{at}"));
        let device = fs_err::File::create(&path).unwrap();
        device.set_len(blob.device_bytes).unwrap();
        let stored = fs_err::File::open(blobs.join(blob.digest.hex())).unwrap();
        paths.push(path);
        files.push((device, stored));
    }
    let mut decoded = Vec::new();
    let mut decoded_extent = None;
    for chunk in &map.chunks {
        let extent = map.extent(chunk.extent).unwrap();
        let (device, stored) = &files[extent.blob.index()];
        // The chunks of a batch follow each other: decode it once.
        if decoded_extent != Some(chunk.extent) {
            let mut bytes = vec![0; usize::try_from(extent.stored_bytes).unwrap()];
            stored
                .file()
                .read_exact_at(&mut bytes, extent.offset.0)
                .unwrap();
            decoder
                .decode(
                    extent.compression,
                    &bytes,
                    extent.decoded_bytes,
                    &mut decoded,
                )
                .unwrap();
            decoded_extent = Some(chunk.extent);
        }
        let from = usize::try_from(chunk.offset.0).unwrap();
        let bytes = &decoded[from..from + usize::try_from(chunk.bytes).unwrap()];
        assert!(chunk.digest.verifies(bytes));
        device.file().write_all_at(bytes, chunk.place.0).unwrap();
    }
    paths
}
