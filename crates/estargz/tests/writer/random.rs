//! Random layers over few names, so that everything meets everything.

use std::cell::Cell;
use std::num::NonZeroUsize;

use draught_estargz::WriteOptions;
use draught_tar::Writer;
use draught_tree::{Entry, EntryKind, Meta};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::support::{Layer, applied, check_layers, file, noise, write};

#[derive(Debug, Clone)]
enum Op {
    Dir(String),
    File(String, u16),
    Symlink(String),
    Link(String, String),
    Pipe(String),
    Hide(String, &'static str),
    Opaque(String),
}

fn path() -> impl Strategy<Value = String> {
    let name = prop::sample::select(&["a", "b", "c"][..]);
    prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"))
}

fn op() -> impl Strategy<Value = Op> {
    let name = prop::sample::select(&["a", "b", "c"][..]);
    // Many links, and files that they can lead to: names that are taken from them are the hard part.
    prop_oneof![
        4 => path().prop_map(Op::Dir),
        6 => (path(), 0..20_000_u16).prop_map(|(path, bytes)| Op::File(path, bytes)),
        1 => path().prop_map(Op::Symlink),
        4 => (path(), path()).prop_map(|(path, target)| Op::Link(path, target)),
        1 => path().prop_map(Op::Pipe),
        1 => (prop::option::of(path()), name).prop_map(|(dir, name)| {
            Op::Hide(dir.map_or(String::new(), |dir| format!("{dir}/")), name)
        }),
        1 => path().prop_map(Op::Opaque),
    ]
}

fn archive(ops: &[Op], layer: usize) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (at, op) in ops.iter().enumerate() {
        let number = 100 * layer + at;
        let (path, kind) = match op {
            Op::Dir(path) => (path.clone(), EntryKind::Directory),
            Op::File(path, bytes) => (path.clone(), file(u64::from(*bytes))),
            // Never on the way to another entry: where that would be, the upper layer alone can't tell.
            Op::Symlink(path) => (format!("{path}-link"), EntryKind::Symlink(b"a"[..].into())),
            Op::Link(path, target) => (path.clone(), EntryKind::HardLink(target.as_bytes().into())),
            Op::Pipe(path) => (path.clone(), EntryKind::Fifo),
            Op::Hide(dir, name) => (format!("{dir}.wh.{name}"), file(0)),
            Op::Opaque(dir) => (format!("{dir}/.wh..wh..opq"), file(0)),
        };
        let meta = Meta {
            mode: 0o700 + u16::try_from(number % 64).unwrap(),
            uid: u32::try_from(number).unwrap(),
            mtime: 1_000_000 + i64::try_from(number).unwrap(),
            mtime_nsec: u32::try_from(number % 3).unwrap() * 500_000_000,
            ..Meta::default()
        };
        let path = path.as_bytes().into();
        writer.entry(&Entry { path, meta, kind }).unwrap();
        if let Op::File(_, bytes) = op {
            writer
                .data(&noise(usize::from(*bytes), number as u64))
                .unwrap();
        }
    }
    writer.finish().unwrap()
}

fn options() -> impl Strategy<Value = WriteOptions> {
    (
        prop::sample::select(&[4096, 8192, 1 << 20][..]),
        prop::sample::select(&[0, 5000, 100_000][..]),
        prop::collection::vec(path(), 0..8),
        1..4_usize,
    )
        .prop_map(|(chunk_bytes, pack_bytes, paths, threads)| WriteOptions {
            chunk_bytes,
            pack_bytes,
            level: 1,
            prefetch: paths.into_iter().map(String::into_bytes).collect(),
            threads: NonZeroUsize::new(threads).unwrap(),
            ..WriteOptions::default()
        })
}

#[test]
fn random_layers_stay_what_they_are() {
    let cases = std::env::var("PROPTEST_CASES").ok();
    let cases = cases.and_then(|cases| cases.parse().ok()).unwrap_or(400);
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let (moved, entries) = (Cell::new(0), Cell::new(0));
    let layers = prop::collection::vec(prop::collection::vec(op(), 0..14), 1..3);
    let tested = runner.run(&(layers, options()), |(layers, options)| {
        let mut archives: Vec<Vec<u8>> = Vec::new();
        for ops in &layers {
            archives.push(acceptable(&archives, ops));
        }
        let expected = applied(&archives).unwrap();
        let mut written: Vec<Layer> = Vec::new();
        for archive in &archives {
            let layer = write(archive, &options);
            written.push(layer.map_err(|error| TestCaseError::fail(error.to_string()))?);
        }
        check_layers(&written, &expected);
        let count = |of: &dyn Fn(&Layer) -> u64| written.iter().map(of).sum::<u64>();
        entries.set(entries.get() + count(&|layer| layer.written.entries));
        moved.set(moved.get() + count(&|layer| layer.written.prefetch_found));
        Ok(())
    });
    if let Err(error) = tested {
        panic!("{error}");
    }
    // What is refused leaves something.
    let (entries, moved, cases) = (entries.get(), moved.get(), u64::from(cases));
    assert!(entries > cases * 4, "only {entries} in {cases}");
    assert!(moved > cases / 4, "only {moved} in {cases}");
}

/// A layer on top of others, of those operations that make one that can be: to anybody, and in this format.
fn acceptable(below: &[Vec<u8>], ops: &[Op]) -> Vec<u8> {
    let mut kept: Vec<Op> = Vec::new();
    for op in ops {
        kept.push(op.clone());
        let layer = archive(&kept, below.len());
        let options = WriteOptions {
            level: 1,
            ..WriteOptions::default()
        };
        let is_layer = applied(below.iter().chain([&layer])).is_ok();
        let is_acceptable = is_layer
            && match write(&layer, &options) {
                Ok(_) => true,
                Err(error) if error.is_limit_of_format() => false,
                Err(error) => panic!("{error:?}"),
            };
        if !is_acceptable {
            kept.pop();
        }
    }
    archive(&kept, below.len())
}
