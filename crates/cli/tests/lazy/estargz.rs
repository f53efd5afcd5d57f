//! eStargz images, as their own tool makes them and as we do, mounted.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use draught_testkit::compare::{self, Applied, Snapshot};
use draught_testkit::images::{Layer, Packing, write_layout};
use draught_testkit::{Estargz, facts, process};

use crate::harness::{Stage, UNREAD, read_range, succeed};
use crate::shared::{assert_right, convert, mount, status_of, umount};

fn archive(dir: &Path) -> Vec<u8> {
    let file = dir.with_extension("tar");
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--format=posix", "-cf"]).arg(&file);
    process::run(tar.arg("-C").arg(dir).arg("."));
    fs_err::read(file).unwrap()
}

fn put(dir: &Path, path: &str, content: &[u8]) {
    let path = dir.join(path);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, content).unwrap();
}

/// The stage's files and what else a tree can hold, and a layer that hides some of it.
fn layers(stage: &Stage) -> Vec<Vec<u8>> {
    let lower = stage.scratch.join("rootfs");
    put(&lower, "etc/gone", b"gone");
    put(&lower, "etc/replaced", &[7; 300_000]);
    put(&lower, "opaque/old", b"old");
    let run = |program: &str, args: &[&str]| {
        process::run(Command::new(program).args(args).current_dir(&lower))
    };
    run("ln", &["-s", "../dir-1/file-8", "etc/link"]);
    run("ln", &["etc/replaced", "etc/hard"]);
    run("ln", &["dir-0/file-0", "hard"]);
    run("mknod", &["null", "c", "1", "3"]);
    run("mknod", &["loop", "b", "7", "300"]);
    run("mkfifo", &["pipe"]);
    run("chown", &["123456:7", "hard"]);
    run("chmod", &["4711", "dir-0/file-7"]);
    run("touch", &["-d", "1969-07-20 20:17:40.25 UTC", "opaque"]);
    facts::set_xattr(&lower.join("etc"), "user.dir", b"\0\xff binary");
    facts::set_xattr(&lower.join("hard"), "security.capability", CAPABILITY);
    let upper = stage.scratch.dir("upper");
    put(&upper, "etc/.wh.gone", b"");
    put(&upper, "etc/replaced", b"by something short");
    put(&upper, "etc/new", &[9; 70_000]);
    put(&upper, "opaque/.wh..wh..opq", b"");
    put(&upper, "opaque/new", b"new");
    vec![archive(&lower), archive(&upper)]
}

/// `cap_net_raw=ep`, revision 2.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn layout(stage: &Stage, name: &str, layers: &[Vec<u8>]) -> PathBuf {
    let dir = stage.scratch.dir(name);
    let layers = layers.iter().map(|layer| Layer {
        archive: Box::new(Cursor::new(layer)),
        packing: Packing::Gzip,
    });
    write_layout(&dir, layers.collect()).unwrap();
    dir
}

/// What layers unpack to, as far as the format has it: its writer rounds times to seconds.
fn unpacked(layers: &[Vec<u8>]) -> Snapshot {
    let mut applied = Applied::default();
    for layer in layers {
        applied.layer(layer.as_slice()).unwrap();
    }
    let mut snapshot = applied.snapshot();
    for facts in snapshot.values_mut() {
        let (seconds, nanoseconds) = facts.mtime;
        facts.mtime = (seconds + i64::from(nanoseconds >= 500_000_000), 0);
    }
    snapshot
}

#[test]
fn images_of_its_own_tool_are_mounted_as_they_unpack() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let Some(estargz) = Estargz::start() else {
        return;
    };
    let layers = layers(&stage);
    let expected = unpacked(&layers);
    let layout = layout(&stage, "layout", &layers);
    stage.start(&[]);
    for (index, options) in [
        &[][..],
        &["--estargz-chunk-size", "65536"],
        &["--estargz-chunk-size", "12288"],
    ]
    .into_iter()
    .enumerate()
    {
        let reference = stage.registry.reference(&format!("estargz:{index}"));
        estargz.convert(&layout, options, &reference);
        let inspected = succeed(&stage.draught(&["inspect", &reference]));
        assert!(inspected.contains("eStargz"), "{inspected}");
        succeed(&stage.draught(&["check", &reference]));
        let dir = mount(&stage, &reference, &format!("estargz-{index}"));
        compare::assert_same(&compare::snapshot_dir(&dir), &expected);
        umount(&stage, &dir);
    }
}

#[test]
fn what_we_write_is_mounted_as_it_unpacks() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let layers = layers(&stage);
    let mut applied = Applied::default();
    for layer in &layers {
        applied.layer(layer.as_slice()).unwrap();
    }
    let expected = applied.snapshot();
    let layout = layout(&stage, "layout", &layers);
    let from = format!("oci:{}:latest", layout.display());
    stage.start(&[]);
    for (index, options) in [
        &[][..],
        &["--chunk-size", "12KiB"],
        &["--batch-size", "100KiB", "--chunk-size", "64KiB"],
    ]
    .into_iter()
    .enumerate()
    {
        let reference = stage.registry.reference(&format!("ours:{index}"));
        let convert = ["convert", "--to", "estargz", &from, &reference];
        succeed(&stage.draught(&[&convert[..], options].concat()));
        succeed(&stage.draught(&["check", &reference]));
        let dir = mount(&stage, &reference, &format!("ours-{index}"));
        compare::assert_same(&compare::snapshot_dir(&dir), &expected);
        umount(&stage, &dir);
    }
}

#[test]
fn what_its_tool_recorded_of_a_start_is_wanted_first() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let Some(estargz) = Estargz::start() else {
        return;
    };
    let layers = layers(&stage);
    let layout = layout(&stage, "layout", &layers);
    let index = fs_err::read(layout.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let manifest = &index["manifests"][0]["digest"];
    // The upper layer hides one of them.
    let lines = ["dir-1/file-8", "opaque/old", "dir-0/file-7"].map(|path| {
        let line = serde_json::json!({"path": path, "manifestDigest": manifest, "layerIndex": 0});
        format!("{line}\n")
    });
    let record = stage.scratch.join("record");
    fs_err::write(&record, lines.concat()).unwrap();
    let reference = stage.registry.reference("estargz:1");
    let options = ["--estargz-record-in", record.to_str().unwrap()];
    estargz.convert(&layout, &options, &reference);
    let text = succeed(&stage.draught(&["inspect", "--format", "json", &reference]));
    let image: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(image["images"][0]["content"]["prefetch"], 2, "{text}");
    succeed(&stage.draught(&["check", &reference]));
}

#[test]
fn content_is_shared_with_an_image_in_another_format() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let Some(estargz) = Estargz::start() else {
        return;
    };
    let archive = archive(&stage.scratch.join("rootfs"));
    let layout = layout(&stage, "layout", &[archive]);
    let lazy = stage.registry.reference("estargz:1");
    estargz.convert(&layout, &["--estargz-chunk-size", "65536"], &lazy);
    let other = stage.registry.reference("other:1");
    let options = ["--chunk-size", "64KiB", "--digester", "sha256"];
    convert(&stage, &stage.files, &options, &other);
    stage.start(&[]);
    let first = mount(&stage, &lazy, "first");
    assert_right(&first, &stage.files);
    let second = mount(&stage, &other, "second");
    stage.registry.proxy().reset_counts();
    assert_right(&second, &stage.files);
    assert_eq!(stage.registry.proxy().counts().blobs().sent_bytes, 0);
    let status = status_of(&stage, &second);
    assert_eq!(status["bytes_shared"], status["bytes_total"], "{status}");
    umount(&stage, &second);
    umount(&stage, &first);
}

#[test]
fn a_damaged_chunk_is_an_error_and_a_damaged_table_is_no_image() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let Some(estargz) = Estargz::start() else {
        return;
    };
    let archive = archive(&stage.scratch.join("rootfs"));
    let layout = layout(&stage, "layout", &[archive]);
    let reference = stage.registry.reference("estargz:1");
    estargz.convert(&layout, &["--estargz-chunk-size", "65536"], &reference);
    let text = succeed(&stage.draught(&["inspect", "--format", "json", &reference]));
    let image: serde_json::Value = serde_json::from_str(&text).unwrap();
    let blob = &image["images"][0]["content"]["blobs"][0];
    let file = stage
        .registry
        .blob_file(&blob["digest"].as_str().unwrap().parse().unwrap());
    let whole = fs_err::read(&file).unwrap();
    let damage = |at: usize| {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs_err::write(&file, damaged).unwrap();
    };
    // Within the incompressible middle of a chunk, whichever that is.
    damage(whole.len() / 3);
    let checked = stage.draught(&["check", &reference]);
    assert!(!checked.status.success());
    let said = String::from_utf8_lossy(&checked.stdout).into_owned()
        + &String::from_utf8_lossy(&checked.stderr);
    assert!(said.contains("/file-"), "{said}");
    stage.start(&["--read-deadline", "1500ms"]);
    let dir = mount(&stage, &reference, "mounted");
    let mut errors = 0;
    for (name, content) in stage.files.iter().filter(|(name, _)| *name != UNREAD) {
        match read_range(&dir.join(name), 0, content.len()) {
            Ok(read) => assert!(read == *content, "{name} has other bytes"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(5), "{name}: {error}");
                errors += 1;
            }
        }
    }
    assert_eq!(errors, 1);
    umount(&stage, &dir);
    succeed(&stage.draught(&["rm", &reference]));
    // The table's member comes before the footer of 51 bytes.
    damage(whole.len() - 100);
    for command in ["inspect", "check"] {
        assert!(!stage.draught(&[command, &reference]).status.success());
    }
    let dir = stage.scratch.dir("refused");
    let refused = stage.draught(&["mount", &reference, dir.to_str().unwrap()]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && message.contains("table of contents"),
        "{message}"
    );
}
