//! Clients that people use, against our registry.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use draught_digest::Digest;
use draught_testkit::images::{Layer, Packing, write_layout};
use draught_testkit::process::run;
use draught_testkit::{Containerd, Scratch, TestRegistry, need, registry};
use serde_json::Value;

/// An OCI layout, tag `latest`, of two layers: one small, one of several megabytes.
fn layout(scratch: &Scratch) -> PathBuf {
    let archive = |name: &str, bytes: usize| {
        let dir = scratch.dir(format!("content-{name}"));
        let content: Vec<u8> = (0..bytes)
            .map(|at| u8::try_from(at * at / 7 % 256).unwrap())
            .collect();
        fs_err::write(dir.join(name), content).unwrap();
        let file = scratch.join(format!("{name}.tar"));
        run(Command::new("tar")
            .arg("-C")
            .arg(&dir)
            .arg("-cf")
            .arg(&file)
            .arg("."));
        Box::new(Cursor::new(fs_err::read(file).unwrap()))
    };
    let layers = vec![
        Layer {
            archive: archive("small", 100),
            packing: Packing::Gzip,
        },
        Layer {
            archive: archive("large", 5_000_000),
            packing: Packing::Gzip,
        },
    ];
    let dir = scratch.join("layout");
    write_layout(&dir, layers).unwrap();
    dir
}

/// The blobs of a layout by digest.
fn blobs(layout: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs_err::read_dir(layout.join("blobs/sha256")).unwrap();
    let read = |entry: std::io::Result<fs_err::DirEntry>| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, fs_err::read(entry.path()).unwrap())
    };
    entries.map(read).collect()
}

fn oci(dir: &Path) -> String {
    format!("oci:{}:latest", dir.display())
}

fn docker(registry: &TestRegistry, name: &str) -> String {
    format!("docker://{}", registry.reference(name))
}

fn skopeo() -> Option<Command> {
    let mut command = Command::new(need::tool("skopeo")?);
    command.arg("--insecure-policy");
    Some(command)
}

const PLAIN_TO: &str = "--dest-tls-verify=false";
const PLAIN_FROM: &str = "--src-tls-verify=false";

#[test]
fn skopeo_copies_an_image_there_and_back() {
    let Some(mut push) = skopeo() else { return };
    let (scratch, registry) = (Scratch::new(), registry());
    let from = layout(&scratch);
    let there = docker(&registry, "lib/image:v1");
    run(push.args(["copy", PLAIN_TO]).arg(oci(&from)).arg(&there));
    let back = scratch.join("back");
    run(skopeo()
        .unwrap()
        .args(["copy", PLAIN_FROM])
        .arg(&there)
        .arg(oci(&back)));
    assert_eq!(blobs(&from), blobs(&back));
    let list = run(skopeo()
        .unwrap()
        .args(["list-tags", "--tls-verify=false"])
        .arg(docker(&registry, "lib/image")));
    assert_eq!(
        serde_json::from_str::<Value>(&list).unwrap()["Tags"][0],
        "v1"
    );
}

#[test]
fn skopeo_copies_an_image_of_dockers_types() {
    let Some(mut push) = skopeo() else { return };
    let (scratch, registry) = (Scratch::new(), registry());
    let there = docker(&registry, "image:v2s2");
    push.args(["copy", "--format", "v2s2", PLAIN_TO]);
    run(push.arg(oci(&layout(&scratch))).arg(&there));
    let manifest = run(skopeo()
        .unwrap()
        .args(["inspect", "--raw", "--tls-verify=false"])
        .arg(&there));
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let media_type = "application/vnd.docker.distribution.manifest.v2+json";
    assert_eq!(manifest["mediaType"], media_type);
    let back = scratch.join("back");
    run(skopeo()
        .unwrap()
        .args(["copy", PLAIN_FROM])
        .arg(&there)
        .arg(oci(&back)));
}

#[test]
fn a_second_push_to_another_repository_moves_no_layer() {
    let Some(mut push) = skopeo() else { return };
    let (scratch, registry) = (Scratch::new(), registry());
    let from = layout(&scratch);
    run(push
        .args(["copy", PLAIN_TO])
        .arg(oci(&from))
        .arg(docker(&registry, "one:latest")));
    let before = registry.proxy().counts();
    let mut copy = skopeo().unwrap();
    copy.args(["copy", PLAIN_FROM, PLAIN_TO]);
    run(copy
        .arg(docker(&registry, "one:latest"))
        .arg(docker(&registry, "two:latest")));
    let moved = registry.proxy().counts().since(&before).total();
    assert!(moved.received_bytes < 10_000, "{moved:?}");
    assert!(moved.sent_bytes < 10_000, "{moved:?}");
}

#[test]
fn skopeo_deletes_an_image() {
    let Some(mut push) = skopeo() else { return };
    let (scratch, registry) = (Scratch::new(), registry());
    let there = docker(&registry, "image:gone");
    run(push
        .args(["copy", PLAIN_TO])
        .arg(oci(&layout(&scratch)))
        .arg(&there));
    run(skopeo()
        .unwrap()
        .args(["delete", "--tls-verify=false"])
        .arg(&there));
    let inspect = skopeo()
        .unwrap()
        .args(["inspect", "--tls-verify=false"])
        .arg(&there)
        .status();
    assert!(!inspect.unwrap().success());
}

#[test]
fn buildah_pushes_and_pulls() {
    let Some(buildah) = need::tool("buildah") else {
        return;
    };
    if !need::root() {
        return;
    }
    let (scratch, registry) = (Scratch::new(), registry());
    let command = || {
        let mut command = Command::new(&buildah);
        command
            .args(["--storage-driver", "vfs", "--root"])
            .arg(scratch.join("store"));
        command.arg("--runroot").arg(scratch.join("run"));
        command.env("BUILDAH_ISOLATION", "chroot");
        command
    };
    let context = scratch.dir("context");
    fs_err::write(context.join("file"), b"content").unwrap();
    fs_err::write(context.join("Dockerfile"), "FROM scratch\nADD file /\n").unwrap();
    run(command().args(["bud", "-q", "-t", "made"]).arg(&context));
    let there = docker(&registry, "built/image:1");
    run(command()
        .args(["push", "-q", "--tls-verify=false", "made"])
        .arg(&there));
    run(command().args(["rmi", "--all", "--force"]));
    run(command()
        .args(["pull", "-q", "--tls-verify=false"])
        .arg(&there));
}

#[test]
fn containerd_pulls_and_pushes() {
    let Some(mut push) = skopeo() else { return };
    let Some(containerd) = Containerd::start(&[]) else {
        return;
    };
    let (scratch, registry) = (Scratch::new(), registry());
    let from = layout(&scratch);
    run(push
        .args(["copy", PLAIN_TO])
        .arg(oci(&from))
        .arg(docker(&registry, "image:v1")));
    let reference = registry.reference("image:v1");
    run(containerd
        .ctr()
        .args(["images", "pull", "--plain-http", &reference]));
    let listed = run(containerd.ctr().args(["images", "ls"]));
    assert!(listed.contains(&reference), "{listed}");
    let other = registry.reference("pushed/by-ctr:v2");
    run(containerd
        .ctr()
        .args(["images", "push", "--plain-http", &other, &reference]));
    let back = scratch.join("back");
    let there = format!("docker://{other}");
    run(skopeo()
        .unwrap()
        .args(["copy", PLAIN_FROM])
        .arg(there)
        .arg(oci(&back)));
    assert_eq!(blobs(&from), blobs(&back));
}

#[test]
fn what_clients_pushed_is_stored_once() {
    let Some(mut push) = skopeo() else { return };
    let (scratch, registry) = (Scratch::new(), registry());
    let from = layout(&scratch);
    run(push
        .args(["copy", PLAIN_TO])
        .arg(oci(&from))
        .arg(docker(&registry, "one:latest")));
    run(skopeo()
        .unwrap()
        .args(["copy", PLAIN_TO])
        .arg(oci(&from))
        .arg(docker(&registry, "two:latest")));
    for (hex, bytes) in blobs(&from) {
        let digest: Digest = format!("sha256:{hex}").parse().unwrap();
        let file = registry.blob_file(&digest);
        // The manifest is no blob of ours.
        if let Ok(stored) = fs_err::read(&file) {
            assert_eq!(stored, bytes);
            use std::os::unix::fs::MetadataExt as _;
            assert_eq!(fs_err::metadata(&file).unwrap().nlink(), 3);
        }
    }
}
