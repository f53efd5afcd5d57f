//! Images that share: what one has brought, the other neither fetches nor stores again, and neither is
//! worse off for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use draught_testkit::fault_proxy::{Auth, Fault, Rule};
use draught_testkit::{TestRegistry, registry};

use crate::harness::{Numbers, Stage, UNREAD, eventually, read_range, succeed};

/// Files below the size of a chunk, which are the same chunks however they are packed, and one that is new.
fn next_version(stage: &Stage) -> BTreeMap<String, Vec<u8>> {
    let mut files = stage.files.clone();
    files.retain(|_, content| content.len() <= 64 << 10);
    files.insert("new".to_owned(), Numbers::new(77).bytes(30_000));
    files
}

/// An image of these files, packed with these options, under that reference.
pub(crate) fn convert(
    stage: &Stage,
    files: &BTreeMap<String, Vec<u8>>,
    options: &[&str],
    reference: &str,
) {
    let name = reference.replace(['/', ':'], "-");
    let rootfs = stage.scratch.dir(format!("rootfs-{name}"));
    for (path, content) in files {
        let path = rootfs.join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    }
    let source = format!("dir:{}", rootfs.display());
    let args = ["convert", &source, reference];
    succeed(&stage.draught(&[&args[..], options].concat()));
}

/// Mounts an image on a directory of its own.
pub(crate) fn mount(stage: &Stage, reference: &str, name: &str) -> PathBuf {
    let dir = stage.scratch.dir(name);
    succeed(&stage.draught(&["mount", reference, dir.to_str().unwrap()]));
    dir
}

pub(crate) fn umount(stage: &Stage, dir: &Path) {
    succeed(&stage.draught(&["umount", dir.to_str().unwrap()]));
}

/// Reads every file past the page cache and compares it.
#[track_caller]
pub(crate) fn assert_right(dir: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (name, content) in files {
        let read = read_range(&dir.join(name), 0, content.len()).unwrap();
        assert!(read == *content, "{name} has other bytes");
    }
}

fn blob_bytes(registry: &TestRegistry) -> u64 {
    registry.proxy().counts().blobs().sent_bytes
}

/// A mount as `ps` has it.
pub(crate) fn status_of(stage: &Stage, dir: &Path) -> serde_json::Value {
    let status = stage.status();
    let mounts = status["mounts"].as_array().unwrap();
    let here = |mount: &&serde_json::Value| mount["dir"].as_str() == dir.to_str();
    mounts.iter().find(here).unwrap().clone()
}

pub(crate) fn disk_bytes(stage: &Stage) -> u64 {
    let store = stage.root().join("store");
    let du = draught_testkit::process::run(
        std::process::Command::new("du")
            .args(["--summarize", "--block-size=1"])
            .arg(store),
    );
    du.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn the_same_files_packed_in_other_ways_are_fetched_once() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    let first = mount(&stage, &stage.reference(), "first");
    assert_right(&first, &stage.files);
    let ways: [&[&str]; 4] = [
        &["--chunk-size", "1MiB"],
        &["--batch-size", "128KiB"],
        &["--compressor", "lz4"],
        &["--compressor", "none"],
    ];
    let files = next_version(&stage);
    let bytes: usize = files.values().map(Vec::len).sum();
    for (index, options) in ways.iter().enumerate() {
        // Each in a registry of its own.
        let other = registry();
        let reference = other.reference(&format!("other-{index}:1"));
        convert(&stage, &files, options, &reference);
        let before = disk_bytes(&stage);
        let dir = mount(&stage, &reference, &format!("other-{index}"));
        other.proxy().reset_counts();
        assert_right(&dir, &files);
        let drawn = blob_bytes(&other);
        let most = if index == 0 { 40_000 } else { 0 };
        assert!(drawn <= most, "{options:?} drew {drawn} of {bytes} bytes");
        let status = status_of(&stage, &dir);
        let shared = status["bytes_shared"].as_u64().unwrap();
        assert!(shared >= bytes as u64 - 40_000, "{options:?}: {status}");
        let added = disk_bytes(&stage).saturating_sub(before);
        assert!(added < 400_000, "{options:?} added {added} bytes");
        umount(&stage, &dir);
    }
    umount(&stage, &first);
}

#[test]
fn an_image_reads_everything_from_its_own_registry_when_the_one_it_shares_with_is_gone() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let other = registry();
    let reference = other.reference("b:1");
    let files = next_version(&stage);
    convert(&stage, &files, &["--compressor", "lz4"], &reference);
    stage.start(&[]);
    let first = mount(&stage, &stage.reference(), "first");
    assert!(read_range(&first.join(UNREAD), 0, 4096).is_ok());
    let second = mount(&stage, &reference, "second");
    let names: Vec<&String> = files
        .keys()
        .filter(|name| !files[*name].is_empty())
        .collect();
    // It is down for half of them and refuses the rest.
    stage.registry.proxy().go_down();
    for (index, name) in names.iter().enumerate() {
        if index == names.len() / 2 {
            stage.registry.proxy().come_up();
            stage.registry.proxy().inject(Rule::new(Fault::Status(403)));
        }
        let read = read_range(&second.join(name), 0, files[*name].len()).unwrap();
        assert!(read == files[*name], "{name} has other bytes");
    }
    // What both have is there for the first one too.
    for name in names.iter().filter(|name| stage.files.contains_key(**name)) {
        let read = read_range(&first.join(name), 0, files[*name].len()).unwrap();
        assert!(read == files[*name], "{name} has other bytes");
    }
    umount(&stage, &second);
    umount(&stage, &first);
}

#[test]
fn removing_an_image_changes_no_byte_of_one_that_shares_with_it() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let other = registry();
    let reference = other.reference("b:1");
    let files = next_version(&stage);
    convert(&stage, &files, &["--compressor", "lz4"], &reference);
    stage.start(&[]);
    let first = mount(&stage, &stage.reference(), "first");
    // Half of everything is there when the second comes.
    for name in stage.readable().iter().step_by(2) {
        assert!(read_range(&first.join(name), 0, stage.files[*name].len()).is_ok());
    }
    let second = mount(&stage, &reference, "second");
    let names: Vec<&String> = files.keys().collect();
    for name in names.iter().step_by(3) {
        assert!(read_range(&second.join(name), 0, files[*name].len()).unwrap() == files[*name]);
    }
    let refused = stage.draught(&["rm", &stage.reference()]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && message.contains("mounted"),
        "{message}"
    );
    umount(&stage, &first);
    let before = disk_bytes(&stage);
    let drawn_before = blob_bytes(&stage.registry);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for _ in 0..3 {
                assert_right(&second, &files);
            }
        });
        succeed(&stage.draught(&["rm", &stage.reference()]));
        succeed(&stage.draught(&["gc"]));
        reader.join().unwrap();
    });
    assert_right(&second, &files);
    assert_eq!(
        blob_bytes(&stage.registry),
        drawn_before,
        "a removed image's registry is asked"
    );
    let freed = before.saturating_sub(disk_bytes(&stage));
    assert!(freed > 1_000_000, "{freed} bytes were given back");
    let again = stage.draught(&["rm", &stage.reference()]);
    assert!(!again.status.success());
    // Mounted again, it shares with the other one and fetches the rest anew.
    let first = mount(&stage, &stage.reference(), "first");
    assert_right(&first, &stage.files);
    umount(&stage, &first);
    umount(&stage, &second);
    succeed(&stage.draught(&["gc", "--unused-for", "0s"]));
    let empty = disk_bytes(&stage);
    assert!(empty < 200_000, "{empty} bytes are left of nothing");
}

#[test]
fn credentials_of_one_image_are_not_shown_to_the_registry_of_another() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let other = registry();
    let reference = other.reference("b:1");
    let files = next_version(&stage);
    convert(&stage, &files, &["--compressor", "lz4"], &reference);
    stage.log_in("anna", "secret");
    stage.registry.proxy().require_tokens(Some(Auth {
        user: Some(("anna".to_owned(), "secret".to_owned())),
        ..Auth::default()
    }));
    stage.start(&[]);
    let first = mount(&stage, &stage.reference(), "first");
    let second = mount(&stage, &reference, "second");
    assert_right(&second, &files);
    let asked = other.proxy().log();
    assert!(!asked.is_empty());
    for request in asked {
        assert!(!request.authorized, "{request:?}");
    }
    umount(&stage, &first);
    umount(&stage, &second);
}

#[test]
fn fifty_mounts_of_one_image_fetch_what_one_fetches() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    let readable: Vec<String> = stage
        .readable()
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    let read_some = |dir: &Path| {
        for name in readable.iter().step_by(5) {
            let read = read_range(&dir.join(name), 0, stage.files[name].len()).unwrap();
            assert!(read == stage.files[name], "{name} has other bytes");
        }
    };
    stage.registry.proxy().reset_counts();
    let dirs: Vec<PathBuf> = (0..50)
        .map(|index| stage.scratch.dir(format!("many-{index}")))
        .collect();
    std::thread::scope(|scope| {
        for dir in &dirs {
            scope.spawn(|| {
                let reference = stage.reference();
                succeed(&stage.draught(&["mount", &reference, dir.to_str().unwrap()]));
                read_some(dir);
            });
        }
    });
    let drawn = stage.registry.proxy().counts();
    for dir in &dirs {
        umount(&stage, dir);
    }
    succeed(&stage.draught(&["gc", "--unused-for", "0s"]));
    stage.registry.proxy().reset_counts();
    let dir = mount(&stage, &stage.reference(), "one");
    read_some(&dir);
    let of_one = stage.registry.proxy().counts();
    let (many, one) = (drawn.blobs().sent_bytes, of_one.blobs().sent_bytes);
    assert!(
        many <= one + one / 50,
        "fifty drew {many} bytes, one draws {one}"
    );
    umount(&stage, &dir);
}

#[test]
fn a_limit_evicts_what_was_used_longest_ago_and_never_what_is_mounted() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let mut numbers = Numbers::new(4242);
    let images: Vec<(String, BTreeMap<String, Vec<u8>>)> = (0..3)
        .map(|index| {
            let files = BTreeMap::from([("file".to_owned(), numbers.bytes(3_000_000))]);
            let reference = stage.registry.reference(&format!("own-{index}:1"));
            convert(&stage, &files, &[], &reference);
            (reference, files)
        })
        .collect();
    stage.start(&["--cache-size-max", "7MiB"]);
    for (index, (reference, files)) in images.iter().enumerate().take(2) {
        let dir = mount(&stage, reference, &format!("own-{index}"));
        assert_right(&dir, files);
        umount(&stage, &dir);
        // Times of use are whole seconds.
        let used = stage.scratch.join("tick");
        let begin = std::time::Instant::now();
        eventually("a second has passed", || {
            let _touched = fs_err::write(&used, "");
            begin.elapsed() > std::time::Duration::from_millis(1100)
        });
    }
    let (reference, files) = &images[2];
    let dir = mount(&stage, reference, "own-2");
    assert_right(&dir, files);
    let left = |stage: &Stage| {
        let df: serde_json::Value =
            serde_json::from_str(&succeed(&stage.draught(&["df", "--format", "json"]))).unwrap();
        let images = df["images"].as_array().unwrap().clone();
        let names = images
            .iter()
            .map(|image| image["references"][0].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    succeed(&stage.draught(&["gc"]));
    assert_eq!(left(&stage), [images[1].0.clone(), images[2].0.clone()]);
    assert!(disk_bytes(&stage) <= 7 << 20);
    umount(&stage, &dir);
    succeed(&stage.draught(&["daemon", "--stop"]));

    // What is mounted is never evicted: then the limit is exceeded, and that is said.
    stage.start(&["--cache-size-max", "1MiB"]);
    let dir = mount(&stage, reference, "own-2");
    succeed(&stage.draught(&["gc"]));
    assert_eq!(left(&stage), std::slice::from_ref(reference));
    assert_right(&dir, files);
    succeed(&stage.draught(&["gc"]));
    let df = succeed(&stage.draught(&["df"]));
    assert!(
        df.contains("more than the limit") && df.contains(reference),
        "{df}"
    );
    let metrics = succeed(&stage.draught(&["metrics"]));
    let over = metrics
        .lines()
        .find_map(|line| line.strip_prefix("draught_store_bytes_over_limit "));
    assert!(
        over.unwrap().parse::<u64>().unwrap() > 1_000_000,
        "{metrics}"
    );
    assert!(stage.log().contains("larger than it may be"));
    umount(&stage, &dir);
}

#[test]
fn a_complete_image_raises_no_events_and_shares_its_devices_unmarked() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    let first = mount(&stage, &stage.reference(), "first");
    assert_right(&first, &stage.files);
    let is_complete = |dir: &Path| {
        let status = status_of(&stage, dir);
        status["lazy"] == false && status["why"].as_str().unwrap().contains("on this node")
    };
    eventually("a complete image is not lazy", || is_complete(&first));
    let second = mount(&stage, &stage.reference(), "second");
    assert!(is_complete(&second));
    let before = stage.status()["events"].as_u64().unwrap();
    assert!(before > 0);
    assert_right(&first, &stage.files);
    assert_right(&second, &stage.files);
    assert_eq!(stage.status()["events"].as_u64().unwrap(), before);
    umount(&stage, &second);
    umount(&stage, &first);
}
