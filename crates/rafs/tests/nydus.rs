//! What nydus writes we read; what we write nydus checks and serves, and the kernel too.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::Path;
use std::process::Command;

use draught_digest::{Algorithm, Digest};
use draught_erofs::Placement;
use draught_rafs::blob::{BlobFeatures, BlobInfo, ChunkInfoRange};
use draught_rafs::bootstrap::{Bootstrap, Input, Limits, Options, Reader, write};
use draught_testkit::need::Nydus;
use draught_testkit::nydus::Created;
use draught_testkit::{Scratch, erofs, facts, need, process};
use draught_tree::{
    Blob, BlobOffset, Chunk, ChunkOffset, Compression, DeviceOffset, Entry, EntryKind, Extent,
    Limits as TreeLimits, Meta, Tree,
};
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

/// A bootstrap with that many blobs of one chunk each, all zeros, and one file for each.
fn with_blobs(count: usize) -> Vec<u8> {
    let mut tree = Tree::new();
    tree.begin_layer();
    let (mut infos, mut nodes) = (Vec::new(), Vec::new());
    for at in 0..count {
        let digest = Digest::sha256(&at.to_le_bytes());
        let blob = tree.map.push_blob(Blob {
            digest,
            stored_bytes: 20_000,
            device_bytes: 4096,
        });
        let extent = tree.map.push_extent(Extent {
            blob: blob.unwrap(),
            offset: BlobOffset(0),
            stored_bytes: 100,
            decoded_bytes: 100,
            compression: Compression::None,
        });
        let chunk = tree.map.push_chunk(Chunk {
            digest: Digest::blake3(&[0; 100]),
            extent: extent.unwrap(),
            offset: ChunkOffset(0),
            bytes: 100,
            place: DeviceOffset(0),
        });
        infos.push(BlobInfo {
            digest: Some(digest),
            features: BlobFeatures::ALIGNED.union(BlobFeatures::CAP_TAR_TOC),
            compression: Compression::None,
            digester: Algorithm::Blake3,
            chunk_bytes_max: 1 << 20,
            chunks: 1,
            stored_bytes: 20_000,
            device_bytes: 4096,
            chunk_info: ChunkInfoRange {
                offset: BlobOffset(612),
                stored_bytes: 16,
                decoded_bytes: 16,
                compression: Compression::None,
            },
            toc: None,
        });
        let kind = EntryKind::File {
            bytes: 100,
            chunks: [chunk.unwrap()].into(),
        };
        let path = format!("file{at}").into_bytes().into();
        let meta = Meta::default();
        let applied = tree.apply(Entry { path, meta, kind }, &TreeLimits::default());
        nodes.push(applied.unwrap().unwrap());
    }
    let input = Input {
        tree: &tree,
        blobs: &infos,
        chunk_indexes: &vec![0; count],
        prefetch: &nodes,
    };
    let options = Options {
        chunk_bytes: 1 << 20,
        compression: Compression::None,
        digester: Algorithm::Blake3,
    };
    let mut out = Vec::new();
    write(&input, &options, &mut out).unwrap();
    out
}

#[test]
fn images_of_no_and_of_254_blobs_are_taken() {
    let Some(nydus) = tools() else { return };
    let scratch = Scratch::new();
    // 15 and 16: where device slots no longer fit into the first block by a reader's reckoning.
    for count in [0, 1, 15, 16, 22, 254] {
        let bytes = with_blobs(count);
        let path = scratch.join(format!("bootstrap{count}"));
        fs_err::write(&path, &bytes).unwrap();
        nydus.check(&path);
        let reader = Reader::open(&bytes, None, &Limits::default()).unwrap();
        assert_eq!(reader.finish().unwrap().prefetch.len(), count);

        let devices = (0..count).map(|at| {
            let device = scratch.join(format!("zeros{at}"));
            fs_err::File::create(&device)
                .unwrap()
                .set_len(4096)
                .unwrap();
            device
        });
        let devices: Vec<_> = devices.collect();
        let dir = scratch.dir(format!("mounted{count}"));
        let _guard = erofs::mount(&path, &devices, &dir).unwrap();
        for at in 0..count {
            let content = fs_err::read(dir.join(format!("file{at}"))).unwrap();
            assert_eq!(content, [0; 100]);
        }
        fsck(&path, &devices);
    }
}
