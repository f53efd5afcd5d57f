//! Images that nydus' own programs check and serve, and that the kernel could.
#![expect(
    clippy::unwrap_used,
    reason = "what fails here fails the test that called it"
)]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use draught_packer::{Directory, ImagePacker, LayerInput, PackOptions, PackedImage};
use draught_rafs::blob::{TOC_TAIL_BYTES, Toc, TocLimits};
use draught_testkit::{Scratch, compare, facts, mounted, need, process};
use draught_tree::Compression;

mod support;
use support::copy;

/// What is packed.
enum Layer {
    Archive(PathBuf),
    Directory(PathBuf),
}

/// Packs, and puts bootstrap and blobs where nydusd wants them.
fn pack(options: PackOptions, layers: &[Layer], out: &Path) -> (PackedImage, PathBuf) {
    let blobs = out.join("blobs");
    fs_err::create_dir_all(&blobs).unwrap();
    let mut packer = ImagePacker::new(options).unwrap();
    for layer in layers {
        let (_, blob) = match layer {
            Layer::Archive(path) => {
                let file = fs_err::File::open(path).unwrap();
                packer.add_layer(LayerInput::new(file), &()).unwrap()
            }
            Layer::Directory(path) => packer
                .add_directory(&mut Directory::open(path).unwrap(), &())
                .unwrap(),
        };
        if let Some(blob) = blob {
            let path = blobs.join(blob.content.digest().hex());
            copy(blob.content.into_file().unwrap(), &path);
        }
    }
    (packer.finish().unwrap(), blobs)
}

/// Takes the bootstrap out of its layer, with tar.
fn bootstrap(image: PackedImage, out: &Path) -> PathBuf {
    let layer = out.join("bootstrap.tar.gz");
    let digest = image.bootstrap.content.digest();
    copy(image.bootstrap.content.into_file().unwrap(), &layer);
    assert!(digest.verifies(&fs_err::read(&layer).unwrap()));
    let mut archive = Vec::new();
    flate2::read::MultiGzDecoder::new(fs_err::File::open(&layer).unwrap())
        .read_to_end(&mut archive)
        .unwrap();
    assert!(image.bootstrap.diff_id.verifies(&archive));
    process::run(
        Command::new("tar")
            .arg("-xzf")
            .arg(&layer)
            .arg("-C")
            .arg(out),
    );
    out.join("image/image.boot")
}

/// The facts of what nydusd serves, compared with those of `expected`.
fn assert_served(options: PackOptions, layers: &[Layer], expected: &facts::FactsOfTree) {
    let Some(nydus) = need::nydus() else { return };
    let scratch = Scratch::new();
    let (image, blobs) = pack(options, layers, scratch.path());
    let bootstrap = bootstrap(image, scratch.path());
    nydus.check(&bootstrap);
    let dir = scratch.dir("mount");
    let served = nydus
        .serve(&bootstrap, &blobs, &scratch.dir("work"), &dir)
        .unwrap();
    let got = facts::of_directory(&dir);
    drop(served);
    assert!(mounted::below(&dir).is_empty());
    facts::assert_same(&got, expected);
}

fn base_archive() -> Option<PathBuf> {
    let path = need::cache_dir().join("base.tar");
    if path.exists() {
        return Some(path);
    }
    need::skip(&format!("there is no {}", path.display()));
    None
}

#[test]
fn nydusd_serves_a_packed_debian_with_every_file_equal() {
    let Some(base) = base_archive() else { return };
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    let root = scratch.dir("root");
    let mut unpack = Command::new("tar");
    unpack.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"]);
    process::run(unpack.arg(&base).arg("-C").arg(&root));
    let expected = facts::of_directory(&root);
    assert_served(PackOptions::default(), &[Layer::Archive(base)], &expected);
    let options = PackOptions {
        compression: Compression::Lz4Block,
        chunk_bytes: 64 << 10,
        ..PackOptions::default()
    };
    assert_served(options, &[Layer::Directory(root)], &expected);
}

#[test]
fn nydusd_serves_two_layers_without_compression() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    let (lower, upper, merged) = (
        scratch.dir("lower"),
        scratch.dir("upper"),
        scratch.dir("merged"),
    );
    let write = |dir: &Path, name: &str, bytes: usize| {
        let path = dir.join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        let seed = u8::try_from(name.len()).unwrap();
        let data: Vec<u8> = (0..bytes)
            .map(|n| n.to_le_bytes()[usize::from(n % 3 == 0)] ^ seed)
            .collect();
        fs_err::write(path, data).unwrap();
    };
    for (name, bytes) in [
        ("a", 5000),
        ("d/bb", 3_000_000),
        ("d/gone", 10),
        ("same", 100_000),
    ] {
        write(&lower, name, bytes);
    }
    for (name, bytes) in [("ccc", 1), ("d/dddd", 70_000), ("same", 100_000)] {
        write(&upper, name, bytes);
    }
    fs_err::write(upper.join("d/.wh.gone"), b"").unwrap();
    for layer in [&lower, &upper] {
        process::run(
            Command::new("cp")
                .arg("-a")
                .arg(layer.join("."))
                .arg(&merged),
        );
    }
    fs_err::remove_file(merged.join("d/.wh.gone")).unwrap();
    fs_err::remove_file(merged.join("d/gone")).unwrap();
    // The directories' times are those of the upper layer.
    for dir in ["", "d"] {
        let mut touch = Command::new("touch");
        process::run(touch.arg("-r").arg(upper.join(dir)).arg(merged.join(dir)));
    }
    let expected = facts::of_directory(&merged);
    let options = PackOptions {
        compression: Compression::None,
        ..PackOptions::default()
    };
    assert_served(
        options,
        &[Layer::Directory(lower), Layer::Directory(upper)],
        &expected,
    );
}

/// Takes a layer apart with nydus' own tool: its blob and the bootstrap in it, nothing else.
fn unpack_blob(nydus: &need::Nydus, blob: &Path, scratch: &Scratch) -> Vec<u8> {
    let bytes = fs_err::read(blob).unwrap();
    let at = bytes
        .len()
        .saturating_sub(usize::try_from(TOC_TAIL_BYTES).unwrap());
    let toc = Toc::decode(&bytes[at..], bytes.len() as u64, &TocLimits::default()).unwrap();
    let entry = toc.bootstrap().unwrap();
    let at = usize::try_from(entry.offset.0).unwrap();
    let stored = &bytes[at..at + usize::try_from(entry.stored_bytes).unwrap()];
    let (boot, out) = (scratch.join("layer.boot"), scratch.join("layer.tar"));
    fs_err::write(&boot, entry.decode(stored).unwrap()).unwrap();
    nydus.check(&boot);
    let mut unpack = Command::new(&nydus.image);
    unpack
        .arg("unpack")
        .arg("--bootstrap")
        .arg(&boot)
        .arg("--blob")
        .arg(blob);
    process::run(unpack.arg("--output").arg(&out));
    fs_err::read(out).unwrap()
}

/// Names in an archive.
fn names(archive: &[u8]) -> Vec<String> {
    let mut reader = draught_tar::Reader::new(archive, draught_tar::Limits::default());
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let name = String::from_utf8(entry.path.to_vec()).unwrap();
        names.push(name.trim_matches(['.', '/']).to_owned());
    }
    names.sort();
    names
}

#[test]
fn nydusd_reads_files_whose_chunks_are_scattered() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    let (lower, upper, merged) = (
        scratch.dir("lower"),
        scratch.dir("upper"),
        scratch.dir("merged"),
    );
    // Chunks that occur again and again, in every order, within files, across files and layers.
    let chunk = |seed: u64| {
        let words =
            (0..512).map(|at| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(at) ^ seed);
        words.flat_map(u64::to_le_bytes).collect::<Vec<u8>>()
    };
    let mut state = 1_u64;
    for (dir, kinds) in [(&lower, 10), (&upper, 20)] {
        for file in 0..60 {
            let mut data = Vec::new();
            for _ in 0..file {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                data.extend_from_slice(&chunk((state >> 33) % kinds));
            }
            data.truncate(data.len().saturating_sub(file));
            fs_err::write(dir.join(format!("{kinds}-{file}")), data).unwrap();
        }
        process::run(Command::new("cp").arg("-a").arg(dir.join(".")).arg(&merged));
    }
    let expected = facts::of_directory(&merged);
    for compression in [Compression::None, Compression::Zstd] {
        let options = PackOptions {
            compression,
            chunk_bytes: 4096,
            ..PackOptions::default()
        };
        let layers = [
            Layer::Directory(lower.clone()),
            Layer::Directory(upper.clone()),
        ];
        assert_served(options, &layers, &expected);
    }
}

#[test]
fn a_blob_holds_a_bootstrap_of_its_layer_that_nydus_unpacks() {
    let (Some(nydus), Some(base)) = (need::nydus(), base_archive()) else {
        return;
    };
    let scratch = Scratch::new();
    let upper = scratch.dir("upper");
    fs_err::write(upper.join("new"), b"brought by the upper layer").unwrap();
    fs_err::write(upper.join(".wh.etc"), b"").unwrap();
    let layers = [Layer::Archive(base.clone()), Layer::Directory(upper)];
    let (image, blobs) = pack(PackOptions::default(), &layers, scratch.path());
    let blob = |at: usize| blobs.join(image.blobs[at].digest.hex());

    let mut expected = compare::Applied::default();
    expected.layer(fs_err::File::open(&base).unwrap()).unwrap();
    let mut got = compare::Applied::default();
    got.layer(&*unpack_blob(&nydus, &blob(0), &scratch))
        .unwrap();
    let (mut got, expected) = (got.snapshot(), expected.snapshot());
    // It leaves the root out.
    got.insert(b"/".to_vec(), expected[&b"/"[..]].clone());
    compare::assert_same(&got, &expected);

    let archive = unpack_blob(&nydus, &blob(1), &scratch);
    assert_eq!(names(&archive), ["new", "wh.etc"]);
}

#[test]
fn the_image_does_not_depend_on_the_threads() {
    let Some(base) = base_archive() else { return };
    let mut digests = Vec::new();
    for threads in [1, 2, 7] {
        let scratch = Scratch::new();
        let options = PackOptions {
            threads: threads.try_into().unwrap(),
            ..PackOptions::default()
        };
        let (image, _) = pack(options, &[Layer::Archive(base.clone())], scratch.path());
        digests.push((image.blobs, image.bootstrap.content.digest()));
    }
    assert!(digests[0] == digests[1] && digests[1] == digests[2]);
}
