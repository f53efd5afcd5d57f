//! Layers applied to a tree are what containerd unpacks from them, but for what it is known to do
//! otherwise (1.6): a second opinion on the structure of a tree, while umoci is the one on attributes.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use draught_testkit::compare::{self, Applied, Snapshot};
use draught_testkit::{Process, Scratch, images, need, process};

const CONFIG: &str = r#"
version = 2
root = "DIR/root"
state = "DIR/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.overlayfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "DIR/c.sock"
[ttrpc]
  address = "DIR/c.sock.ttrpc"
"#;

/// What containerd makes of an image: its snapshotter `native` keeps plain directories.
fn unpacked(containerd: &Path, ctr: &Path, layout: &Path, scratch: &Scratch) -> Snapshot {
    let config = scratch.join("config.toml");
    let dir = scratch.path().to_str().unwrap();
    fs_err::write(&config, CONFIG.replace("DIR", dir)).unwrap();
    let socket = scratch.join("c.sock");
    let mut command = Command::new(containerd);
    command.arg("--config").arg(&config);
    let mut daemon = Process::start(&mut command, &scratch.join("log")).unwrap();
    daemon.wait_for_socket(&socket).unwrap();
    let archive = scratch.join("image.tar");
    process::run(
        Command::new("tar")
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(layout)
            .args(["blobs", "index.json", "oci-layout"]),
    );
    let client = |args: &[&str]| {
        let mut command = Command::new(ctr);
        command.arg("-a").arg(&socket).args(args);
        command
    };
    let import = [
        "images",
        "import",
        "--snapshotter",
        "native",
        "--base-name",
        "x",
    ];
    process::run(client(&import).arg(&archive));
    let names = process::run(&mut client(&[
        "snapshots",
        "--snapshotter",
        "native",
        "list",
    ]));
    let parents: Vec<_> = names
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .collect();
    // The top is nobody's parent.
    let top = parents
        .iter()
        .map(|fields| fields[0])
        .find(|key| parents.iter().all(|fields| fields.get(1) != Some(key)))
        .unwrap();
    let snapshots = ["snapshots", "--snapshotter", "native"];
    // A view that nothing refers to is garbage: a collection may come in between.
    let view = || {
        client(&snapshots)
            .args(["view", "v", top])
            .output()
            .unwrap();
        let mounts = client(&snapshots)
            .args(["mounts", "/mnt", "v"])
            .output()
            .unwrap();
        mounts
            .status
            .success()
            .then(|| String::from_utf8_lossy(&mounts.stdout).into_owned())
    };
    let mounts = (0..20).find_map(|_| view()).expect("the view can be had");
    let root = mounts
        .split_whitespace()
        .find(|word| word.starts_with(dir))
        .unwrap();
    let snapshot = compare::snapshot_dir(&PathBuf::from(root));
    daemon.stop().unwrap();
    snapshot
}

/// Takes away what containerd does not restore, or restores otherwise than the archive says and than
/// umoci and GNU tar do.
fn forget_what_containerd_changes(snapshot: &mut Snapshot) {
    // It does not touch the root.
    snapshot.remove(&b"/"[..]);
    for attributes in snapshot.values_mut() {
        // Its snapshotter copies every layer's directory for the next: times of directories and
        // links between anything but files get lost, and attributes that it does not know.
        let kind = attributes.mode & 0o170_000;
        if kind == 0o040_000 {
            attributes.mtime = (0, 0);
        }
        if kind != 0o100_000 {
            attributes.links = 1;
            attributes.first_name.clear();
        }
        attributes
            .xattrs
            .retain(|name, _| name == b"security.capability");
        // Times before 1970 become 1970.
        if attributes.mtime.0 < 0 {
            attributes.mtime = (0, 0);
        }
    }
}

/// It gives an inode the owner, mode and time of its last hard link's entry. Archives say the same in
/// both but for the one here.
fn forget_what_hard_links_change(got: &mut Snapshot, expected: &mut Snapshot, linked: &[Vec<u8>]) {
    for path in linked {
        for snapshot in [&mut *got, &mut *expected] {
            if let Some(attributes) = snapshot.get_mut(path) {
                (attributes.uid, attributes.gid, attributes.mtime) = (0, 0, (0, 0));
                attributes.mode &= 0o170_000;
            }
        }
    }
}

#[test]
fn every_trick_of_layers_is_what_containerd_makes_of_it() {
    let (Some(containerd), Some(ctr)) = (need::tool("containerd"), need::tool("ctr")) else {
        return;
    };
    if !need::root() {
        return;
    }
    let mut got = Applied::default();
    // Every inode that ever had a second name.
    let mut linked = std::collections::BTreeSet::new();
    for layer in images::torture_layers() {
        got.layer(&layer[..]).unwrap();
        let snapshot = got.snapshot();
        let several = snapshot.into_iter().filter(|(_, it)| it.links > 1);
        linked.extend(several.map(|(path, _)| path));
    }
    // Linked to a file that the same layer then took away.
    linked.extend([b"/links/four-c".to_vec(), b"/twice/kept".to_vec()]);
    let mut got = got.snapshot();
    let scratch = Scratch::new();
    let mut expected = unpacked(&containerd, &ctr, &images::torture(), &scratch);

    // A whiteout hides what is below it, says the specification; containerd's removes what its own
    // layer brought before, too. And it makes the parents of a whiteout that hides nothing.
    assert!(got.remove(&b"/old/sub/b"[..]).is_some());
    assert!(expected.remove(&b"/never/there"[..]).is_some());
    assert!(expected.remove(&b"/never"[..]).is_some());
    // It restores directories' times at the end, by path: one became a file meanwhile.
    linked.insert(b"/twice/to-file".to_vec());
    forget_what_containerd_changes(&mut got);
    forget_what_containerd_changes(&mut expected);
    let linked: Vec<_> = linked.into_iter().collect();
    forget_what_hard_links_change(&mut got, &mut expected, &linked);
    assert!(got.len() > 1200);
    compare::assert_same(&got, &expected);
}
