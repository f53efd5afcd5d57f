//! Images that nydus' own programs check and serve, and that the kernel could.
#![expect(
    clippy::unwrap_used,
    reason = "what fails here fails the test that called it"
)]

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use draught_packer::{Directory, ImagePacker, LayerInput, PackOptions, PackedImage};
use draught_testkit::{Scratch, facts, mounted, need, process};
use draught_tree::Compression;

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

fn copy(mut from: File, to: &Path) {
    let mut to = fs_err::File::create(to).unwrap();
    io::copy(&mut from, &mut to).unwrap();
}

/// Takes the bootstrap out of its layer, with tar.
fn bootstrap(image: PackedImage, out: &Path) -> PathBuf {
    let layer = out.join("bootstrap.tar.gz");
    let digest = image.bootstrap.content.digest();
    copy(image.bootstrap.content.into_file().unwrap(), &layer);
    assert!(digest.verifies(&fs_err::read(&layer).unwrap()));
    let mut archive = Vec::new();
    flate2::read::GzDecoder::new(fs_err::File::open(&layer).unwrap())
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
