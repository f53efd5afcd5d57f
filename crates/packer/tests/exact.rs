//! Images packed here, mounted by the kernel and served by nydusd, are what umoci unpacks from the
//! same layers, file by file and fact by fact.
#![expect(
    clippy::unwrap_used,
    reason = "what fails here fails the test that called it"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use draught_packer::{ImagePacker, LayerInput, PackOptions, PackedImage};
use draught_tar::Writer;
use draught_testkit::compare::{self, Snapshot};
use draught_testkit::images::{Layer, Packing, write_layout};
use draught_testkit::{Scratch, erofs, images, need, process};
use draught_tree::{Compression, Entry, EntryKind, Meta, Tree};

mod support;
use support::{copy, devices, unwrap_bootstrap};

/// An image as files: its bootstrap and, by digest, its blobs.
struct Packed {
    tree: Tree,
    bootstrap: PathBuf,
    blobs: PathBuf,
}

fn pack(layout: &Path, options: PackOptions, out: &Path) -> Packed {
    let blobs = out.join("blobs");
    fs_err::create_dir_all(&blobs).unwrap();
    let mut packer = ImagePacker::new(options).unwrap();
    for layer in images::layer_files(layout) {
        let layer = LayerInput::new(fs_err::File::open(layer).unwrap());
        if let (_, Some(blob)) = packer.add_layer(layer, &()).unwrap() {
            let path = blobs.join(blob.content.digest().hex());
            copy(blob.content.into_file().unwrap(), &path);
        }
    }
    let PackedImage {
        tree, bootstrap, ..
    } = packer.finish().unwrap();
    let bootstrap = unwrap_bootstrap(bootstrap, out);
    Packed {
        tree,
        bootstrap,
        blobs,
    }
}

/// What umoci makes of an image.
fn unpacked(umoci: &Path, layout: &Path, scratch: &Scratch) -> Snapshot {
    let bundle = scratch.join("bundle");
    let mut image = layout.as_os_str().to_owned();
    image.push(":latest");
    let mut unpack = Command::new(umoci);
    process::run(unpack.args(["unpack", "--image"]).arg(image).arg(&bundle));
    compare::snapshot_dir(&bundle.join("rootfs"))
}

/// Compares what the kernel shows; skips if it can't.
fn check_kernel(layout: &Path, options: PackOptions) {
    let Some(umoci) = need::tool("umoci") else {
        return;
    };
    if !need::root() || !need::filesystem("erofs") {
        return;
    }
    let scratch = Scratch::new();
    let expected = unpacked(&umoci, layout, &scratch);
    let packed = pack(layout, options, scratch.path());
    let devices = devices(&packed.tree.map, &packed.blobs, scratch.path());
    let dir = scratch.dir("mounted");
    let mount = erofs::mount(&packed.bootstrap, &devices, &dir).unwrap();
    let got = compare::snapshot_dir(&dir);
    drop(mount);
    compare::assert_same(&got, &expected);
}

/// Compares what nydusd shows; skips if it is not there.
fn check_nydusd(layout: &Path, options: PackOptions) {
    let (Some(umoci), Some(nydus)) = (need::tool("umoci"), need::nydus()) else {
        return;
    };
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    let expected = unpacked(&umoci, layout, &scratch);
    let packed = pack(layout, options, scratch.path());
    nydus.check(&packed.bootstrap);
    let dir = scratch.dir("mounted");
    let work = scratch.dir("work");
    let served = nydus
        .serve(&packed.bootstrap, &packed.blobs, &work, &dir)
        .unwrap();
    let mut got = compare::snapshot_dir(&dir);
    drop(served);
    for (path, expected) in &expected {
        // nydusd shows its own start where an inode says the first second of 1970.
        if let Some(got) = got.get_mut(path).filter(|_| expected.mtime == (0, 0)) {
            got.mtime = (0, 0);
        }
    }
    compare::assert_same(&got, &expected);
}

fn small_chunks() -> PackOptions {
    PackOptions {
        compression: Compression::Lz4Block,
        chunk_bytes: 4096,
        ..PackOptions::default()
    }
}

/// The torture image less what nydus 2.2 can't hold: `nydus-image` refuses to create or check an image
/// with a POSIX access control list in it.
fn torture_for_nydus(scratch: &Scratch) -> PathBuf {
    let mut whiteout = Writer::new(Vec::new());
    let kind = EntryKind::File {
        bytes: 0,
        chunks: Box::default(),
    };
    let path = b"meta/.wh.acl"[..].into();
    let meta = Meta::default();
    whiteout.entry(&Entry { path, meta, kind }).unwrap();
    let mut archives = images::torture_layers();
    archives.push(whiteout.finish().unwrap());
    let layout = scratch.join("layout");
    let layers = archives.iter().map(|archive| Layer {
        archive: Box::new(&archive[..]),
        packing: Packing::Gzip,
    });
    write_layout(&layout, layers.collect()).unwrap();
    layout
}

#[test]
fn the_kernel_shows_every_kind_of_entry_and_every_trick_of_layers() {
    check_kernel(&images::torture(), PackOptions::default());
    check_kernel(&images::torture(), small_chunks());
}

#[test]
fn nydusd_shows_every_kind_of_entry_and_every_trick_of_layers() {
    let scratch = Scratch::new();
    let layout = torture_for_nydus(&scratch);
    check_nydusd(&layout, PackOptions::default());
    // Where one read covers chunks that are not neighbours in the blob, nydusd 2.2 gives wrong bytes,
    // from images of its own as well. Ours have fences there.
    check_nydusd(&layout, small_chunks());
}

#[test]
fn the_kernel_shows_what_a_builder_stacked() {
    if let Some(layout) = images::python() {
        check_kernel(&layout, PackOptions::default());
    }
}

#[test]
fn nydusd_shows_what_a_builder_stacked() {
    if let Some(layout) = images::python() {
        check_nydusd(&layout, PackOptions::default());
    }
}
