//! An image's layers, the directory that they unpack to, and an archive of that directory are one
//! tree.
#![expect(
    clippy::unwrap_used,
    reason = "what fails here fails the test that called it"
)]

use std::path::Path;
use std::process::Command;

use draught_digest::{Algorithm, Hasher};
use draught_packer::{Directory, ImagePacker, LayerInput, PackOptions};
use draught_testkit::compare::{self, Snapshot};
use draught_testkit::{Scratch, images, need, process};
use draught_tree::{Kind, Tree};

/// A tree's snapshot, the content of a file being the list of its chunks' digests.
fn snapshot(tree: &Tree) -> Snapshot {
    compare::snapshot_tree(tree, &|id| {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        if let Kind::File { chunks, .. } = &tree.node(id).kind {
            for chunk in chunks {
                hasher.update(tree.map.chunk(*chunk).unwrap().digest.as_bytes());
            }
        }
        hasher.finish()
    })
}

fn packed_layers(layers: &[Vec<u8>]) -> Snapshot {
    let mut packer = ImagePacker::new(PackOptions::default()).unwrap();
    for layer in layers {
        packer.add_layer(LayerInput::new(&layer[..]), &()).unwrap();
    }
    snapshot(&packer.finish().unwrap().tree)
}

fn packed_directory(root: &Path) -> Snapshot {
    let mut packer = ImagePacker::new(PackOptions::default()).unwrap();
    let mut directory = Directory::open(root).unwrap();
    packer.add_directory(&mut directory, &()).unwrap();
    snapshot(&packer.finish().unwrap().tree)
}

#[test]
fn layers_and_the_directory_and_the_archive_made_of_them_are_one_tree() {
    let (Some(umoci), Some(tar)) = (need::tool("umoci"), need::tool("tar")) else {
        return;
    };
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    let bundle = scratch.join("bundle");
    let mut image = images::torture().into_os_string();
    image.push(":latest");
    let mut unpack = Command::new(umoci);
    process::run(unpack.args(["unpack", "--image"]).arg(image).arg(&bundle));
    let root = bundle.join("rootfs");
    let layers = packed_layers(&images::torture_layers());
    let directory = packed_directory(&root);
    compare::assert_same(&directory, &layers);

    let archive = scratch.join("archive.tar");
    let mut pack = Command::new(tar);
    pack.args(["-c", "--format=pax", "--numeric-owner", "--sort=name", "-S"])
        .args(["--xattrs", "--xattrs-include=*", "-f"]);
    process::run(pack.arg(&archive).arg("-C").arg(&root).arg("."));
    let mut archive = packed_layers(&[fs_err::read(&archive).unwrap()]);
    // GNU tar writes every name of a device or pipe as one of its own.
    let mut expected = directory;
    for path in [
        "disk",
        "link-disk",
        "null",
        "link-null",
        "pipe",
        "link-pipe",
    ] {
        let path = format!("/kinds/{path}").into_bytes();
        for snapshot in [&mut archive, &mut expected] {
            let attributes = snapshot.get_mut(&path).unwrap();
            attributes.links = 1;
            attributes.first_name.clear();
        }
    }
    compare::assert_same(&archive, &expected);
}
