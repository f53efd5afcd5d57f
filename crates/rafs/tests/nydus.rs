//! What nydus writes we read; what we write nydus checks and serves, and the kernel too.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::Path;
use std::process::Command;

use draught_erofs::Placement;
use draught_rafs::bootstrap::{Bootstrap, Input, Options, write};
use draught_testkit::need::Nydus;
use draught_testkit::nydus::Created;
use draught_testkit::{Scratch, erofs, facts, need, process};
use fs_err::os::unix::fs::FileExt as _;

mod support;
use support::Blobs;

fn tools() -> Option<Nydus> {
    if !need::root() || !need::filesystem("erofs") {
        return None;
    }
    need::nydus()
}

/// Writes what was read once more.
fn rewrite(bootstrap: &Bootstrap) -> Vec<u8> {
    let input = Input {
        tree: &bootstrap.tree,
        blobs: &bootstrap.blobs,
        chunk_indexes: &bootstrap.chunk_indexes,
        prefetch: &bootstrap.prefetch,
    };
    let options = Options {
        chunk_bytes: bootstrap.chunk_bytes,
        compression: bootstrap.compression,
        digester: bootstrap.digester,
    };
    let mut out = Vec::new();
    let summary = write(&input, &options, &mut out).unwrap();
    assert_eq!(summary.bytes, u64::try_from(out.len()).unwrap());
    out
}

/// Decodes all blobs into device files.
fn devices(bootstrap: &Bootstrap, blobs: &Blobs, dir: &Path) -> Vec<std::path::PathBuf> {
    let map = &bootstrap.tree.map;
    let paths = (0..map.blobs.len()).map(|at| dir.join(format!("device{at}")));
    let paths: Vec<_> = paths.collect();
    let files: Vec<_> = paths
        .iter()
        .map(|path| fs_err::File::create(path).unwrap())
        .collect();
    for (file, blob) in files.iter().zip(&map.blobs) {
        file.set_len(blob.device_bytes).unwrap();
    }
    for chunk in &map.chunks {
        let bytes = blobs.chunk(map, chunk);
        let blob = map.blob_of(chunk).unwrap();
        files[blob.index()]
            .write_all_at(&bytes, chunk.place.0)
            .unwrap();
    }
    paths
}

/// Everything that can be asked of an image that nydus made: our reader and nydusd see the same, which is the
/// source; what we write of it, nydus' checker takes, nydusd and the kernel serve, and we read back.
fn check(nydus: &Nydus, created: &Created, source: &facts::FactsOfTree) {
    let scratch = Scratch::new();
    let blobs = Blobs::new(&created.blobs);
    let theirs = fs_err::read(&created.bootstrap).unwrap();
    let read = blobs.open(&theirs);
    let got = blobs.facts(&read);
    let mut expected = source.clone();
    support::forget_what_nydus_forgets(&mut expected, &got);
    facts::assert_same(&got, &expected);

    let ours = rewrite(&read);
    assert_eq!(
        ours,
        rewrite(&blobs.open(&ours)),
        "a copy of a copy is the same"
    );
    let ours_path = scratch.join("ours");
    fs_err::write(&ours_path, &ours).unwrap();
    nydus.check(&ours_path);

    for (name, bootstrap) in [("theirs", &created.bootstrap), ("ours", &ours_path)] {
        let work = scratch.dir(format!("work-{name}"));
        let dir = scratch.dir(format!("served-{name}"));
        let served = nydus.serve(bootstrap, &created.blobs, &work, &dir).unwrap();
        let mut seen = facts::of_directory(&dir);
        // The root that nydusd shows is one of its own, as old as the mount.
        seen.get_mut(&b"/"[..]).unwrap().mtime = got[&b"/"[..]].mtime;
        facts::assert_same(&seen, &got);
        drop(served);
    }

    let devices = devices(&read, &blobs, scratch.path());
    let mut image = Vec::new();
    let placement = Placement::of_blobs(&read.tree.map);
    draught_erofs::write(&read.tree, &placement, &Default::default(), &mut image).unwrap();
    let image_path = scratch.join("image");
    fs_err::write(&image_path, image).unwrap();
    for (name, image) in [("bootstrap", &ours_path), ("image", &image_path)] {
        let dir = scratch.dir(format!("mounted-{name}"));
        let _guard = erofs::mount(image, &devices, &dir).unwrap();
        facts::assert_same(&facts::of_directory(&dir), &got);
    }
    fsck(&ours_path, &devices);
}

fn fsck(image: &Path, devices: &[std::path::PathBuf]) {
    let Some(fsck) = need::tool("fsck.erofs") else {
        return;
    };
    let mut command = Command::new(fsck);
    for device in devices {
        command.arg(format!("--device={}", device.display()));
    }
    process::run(command.arg("--extract").arg(image));
}

fn packed_with(args: &[&str]) {
    let Some(nydus) = tools() else { return };
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    support::everything(&source);
    let facts = facts::of_directory(&source);
    let created = nydus.create(&source, scratch.path(), args);
    check(&nydus, &created, &facts);
}

#[test]
fn zstd_and_blake3_go_both_ways() {
    packed_with(&["--compressor", "zstd", "--digester", "blake3"]);
}

#[test]
fn lz4_and_sha256_go_both_ways() {
    packed_with(&["--compressor", "lz4_block", "--digester", "sha256"]);
}

#[test]
fn nothing_compressed_goes_both_ways() {
    packed_with(&["--compressor", "none", "--digester", "sha256"]);
}

#[test]
fn small_chunks_go_both_ways() {
    packed_with(&["--compressor", "zstd", "--chunk-size", "0x1000"]);
}

#[test]
fn large_chunks_go_both_ways() {
    packed_with(&["--compressor", "lz4_block", "--chunk-size", "0x1000000"]);
}

#[test]
fn a_debian_base_system_goes_both_ways() {
    let Some(nydus) = tools() else { return };
    let tar = need::cache_dir().join("base.tar");
    if !tar.exists() {
        need::skip("the base system's archive is not in the cache directory");
        return;
    }
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    let mut unpack = Command::new("tar");
    unpack
        .args(["--xattrs", "--xattrs-include=*", "-xpf"])
        .arg(&tar);
    process::run(unpack.arg("-C").arg(&source));
    let facts = facts::of_directory(&source);
    let created = nydus.create(&source, scratch.path(), &[]);
    check(&nydus, &created, &facts);
}
