//! Random layers over few names, so that everything meets everything, are what umoci makes of them.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::Path;
use std::process::Command;

use draught_tar::Writer;
use draught_testkit::compare::{self, Applied, Snapshot};
use draught_testkit::images::{Layer, Packing, write_layout};
use draught_testkit::{Scratch, need};
use draught_tree::{Entry, EntryKind, Meta};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// What stands in a layer.
#[derive(Debug, Clone)]
enum Op {
    Dir(String),
    File(String),
    Symlink(String, String),
    Link(String, String),
    Hide(String, &'static str),
    Opaque(String),
}

fn path() -> impl Strategy<Value = String> {
    let name = prop::sample::select(&["a", "b", "c"][..]);
    prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"))
}

fn op() -> impl Strategy<Value = Op> {
    let target = prop_oneof![
        path(),
        path().prop_map(|path| format!("/{path}")),
        path().prop_map(|path| format!("../{path}")),
    ];
    let name = prop::sample::select(&["a", "b", "c"][..]);
    prop_oneof![
        4 => path().prop_map(Op::Dir),
        4 => path().prop_map(Op::File),
        1 => (path(), target).prop_map(|(path, target)| Op::Symlink(path, target)),
        1 => (path(), path()).prop_map(|(path, target)| Op::Link(path, target)),
        2 => (prop::option::of(path()), name).prop_map(|(dir, name)| {
            Op::Hide(dir.map_or(String::new(), |dir| format!("{dir}/")), name)
        }),
        1 => path().prop_map(Op::Opaque),
    ]
}

fn archive(ops: &[Op], layer: usize) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (at, op) in ops.iter().enumerate() {
        let file = |bytes| EntryKind::File {
            bytes,
            chunks: Box::default(),
        };
        let (path, kind) = match op {
            Op::Dir(path) => (path.clone(), EntryKind::Directory),
            Op::File(path) => (path.clone(), file(2)),
            Op::Symlink(path, target) => {
                (path.clone(), EntryKind::Symlink(target.as_bytes().into()))
            }
            Op::Link(path, target) => (path.clone(), EntryKind::HardLink(target.as_bytes().into())),
            Op::Hide(dir, name) => (format!("{dir}.wh.{name}"), file(0)),
            Op::Opaque(dir) => (format!("{dir}/.wh..wh..opq"), file(0)),
        };
        let number = u8::try_from(10 * layer + at).unwrap();
        let meta = Meta {
            mode: 0o700 + u16::from(number % 64),
            uid: u32::from(number),
            mtime: 1_000_000 + i64::from(number),
            ..Meta::default()
        };
        let has_content = matches!(op, Op::File(_));
        let path = path.as_bytes().into();
        writer.entry(&Entry { path, meta, kind }).unwrap();
        if has_content {
            writer.data(&[number, b'\n']).unwrap();
        }
    }
    writer.finish().unwrap()
}

/// What umoci makes of the layers; `None` if it refuses them.
fn unpacked(umoci: &Path, scratch: &Scratch, archives: &[Vec<u8>]) -> Result<Snapshot, String> {
    let dir = tempfile::tempdir_in(scratch.path()).unwrap();
    let layers = archives.iter().map(|archive| Layer {
        archive: Box::new(&archive[..]),
        packing: Packing::Tar,
    });
    let layout = dir.path().join("layout");
    write_layout(&layout, layers.collect()).unwrap();
    let mut image = layout.into_os_string();
    image.push(":latest");
    let bundle = dir.path().join("bundle");
    let output = Command::new(umoci)
        .args(["unpack", "--image"])
        .arg(image)
        .arg(&bundle)
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(compare::snapshot_dir(&bundle.join("rootfs")))
}

/// umoci leaves directories with the time of day when it made them without an entry, or made or
/// removed something below their children without one: no archive says that, so it does not count.
fn forget_times_of_day(got: &mut Snapshot, expected: &mut Snapshot) {
    for (path, expected) in expected {
        let by_entry = (1_000_000..2_000_000).contains(&expected.mtime.0);
        if !by_entry && expected.mode & 0o170_000 == 0o040_000 {
            expected.mtime = (0, 0);
            if let Some(got) = got.get_mut(path) {
                got.mtime = (0, 0);
            }
        }
    }
}

#[test]
fn random_layers_are_what_umoci_makes_of_them() {
    let Some(umoci) = need::tool("umoci").filter(|_| need::root()) else {
        return;
    };
    let scratch = Scratch::new();
    let cases = std::env::var("PROPTEST_CASES").ok();
    let cases = cases.and_then(|cases| cases.parse().ok()).unwrap_or(200);
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 400,
        ..Config::default()
    });
    let compared = std::cell::Cell::new(0);
    let layers = prop::collection::vec(prop::collection::vec(op(), 0..8), 1..4);
    let tested = runner.run(&layers, |layers| {
        let archives: Vec<Vec<u8>> = layers
            .iter()
            .enumerate()
            .map(|(at, ops)| archive(ops, at))
            .collect();
        let mut got = Applied::default();
        let applied = archives
            .iter()
            .try_for_each(|archive| got.layer(&archive[..]));
        let expected = unpacked(&umoci, &scratch, &archives);
        match (applied, expected) {
            (Ok(()), Ok(mut expected)) => {
                let mut got = got.snapshot();
                forget_times_of_day(&mut got, &mut expected);
                let lines = compare::diff(&got, &expected);
                prop_assert!(lines.is_empty(), "{}", lines.join("\n"));
                compared.set(compared.get() + 1);
                Ok(())
            }
            (Err(_), Err(_)) => Ok(()),
            // A link that replaces its own target, or a directory that its target is in: umoci removes
            // first and then finds nothing to link to, we and GNU tar know better.
            (Ok(()), Err(error)) if error.contains("link: no such file or directory") => Ok(()),
            (Ok(()), Err(error)) => Err(TestCaseError::fail(format!("umoci refuses: {error}"))),
            (Err(error), Ok(_)) => Err(TestCaseError::fail(format!("we refuse: {error:#}"))),
        }
    });
    if let Err(error) = tested {
        panic!("{error}");
    }
    // Many layers are refused by both, for links to what is not there. Not too many, it is hoped.
    assert!(
        compared.get() > cases / 3,
        "only {} of {cases}",
        compared.get()
    );
}
