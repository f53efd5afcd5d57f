//! Replays against containerd's own overlays and against a model, right and wrong.

use std::path::Path;

use draught_tar::Writer;
use draught_tree::{Entry, EntryKind, Meta};

use super::*;
use crate::compare::Applied;
use crate::images::{Layer, Packing, write_layout};
use crate::snapshots::Target;
use crate::snapshots::model::{Fault, Model, Serving};
use crate::{Containerd, Scratch, need};

/// Traces in which no layer is lazy.
const EAGER: [&str; 5] = [
    "buildkit-0.32-other-name-no-labels",
    "buildkit-0.32-stargz-name-plain-gzip",
    "buildkit-0.32-stargz-name-remote-prepare-fails",
    "containerd-2.1-transfer-plain-gzip",
    "containerd-2.3-parallel-unpack-rebase",
];

/// Traces in which all are.
const LAZY: [&str; 2] = [
    "buildkit-0.32-stargz-name-lazy-esgz",
    "containerd-1.6-ctr-remote-rpull-and-run",
];

/// One layer for each number: it adds a file, changes one and removes what the layer before added.
fn archive(number: usize) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    let mut add = |path: String, content: Option<String>| {
        let kind = match &content {
            None => EntryKind::Directory,
            Some(content) => EntryKind::File {
                bytes: content.len() as u64,
                chunks: Box::default(),
            },
        };
        let meta = Meta {
            mode: 0o750,
            uid: 1000,
            gid: 100,
            mtime: 1_600_000_000,
            ..Meta::default()
        };
        let path = path.into_bytes().into();
        writer.entry(&Entry { path, meta, kind }).unwrap();
        writer.data(content.unwrap_or_default().as_bytes()).unwrap();
    };
    add("dir".to_owned(), None);
    add(format!("dir/added-{number}"), Some(number.to_string()));
    add("dir/changed".to_owned(), Some(format!("by layer {number}")));
    if let Some(before) = number.checked_sub(1) {
        add(format!("dir/.wh.added-{before}"), Some(String::new()));
    }
    writer.finish().unwrap()
}

/// An image of four layers, in a layout in `dir`.
fn an_image(dir: &Path) -> Image {
    let packings = [Packing::Gzip, Packing::Zstd, Packing::Tar, Packing::Gzip];
    let archives: Vec<Vec<u8>> = (0..4).map(archive).collect();
    let layers = archives
        .iter()
        .zip(packings)
        .map(|(archive, packing)| Layer {
            archive: Box::new(&archive[..]),
            packing,
        });
    write_layout(dir, layers.collect()).unwrap();
    Image::of_layout("127.0.0.1:7/test:it", dir).unwrap()
}

fn options() -> Options {
    let mut applied = Applied::default();
    for number in 0..4 {
        applied.layer(&archive(number)[..]).unwrap();
    }
    Options {
        tree: Some(applied.snapshot()),
        ..Options::default()
    }
}

fn a_model(image: Option<&Image>, own_names: bool, fault: Option<Fault>) -> Serving {
    let layers = image.map_or(&[][..], |image| &image.layers);
    let lazy = layers.iter().enumerate();
    Model {
        lazy: lazy
            .map(|(number, layer)| (layer.digest.clone(), archive(number)))
            .collect(),
        own_names,
        fault,
    }
    .serve()
}

fn target(socket: &Path) -> Target {
    Target::new(socket, "model", "default")
}

#[test]
fn a_right_snapshotter_answers_as_was_recorded() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    let image = an_image(&scratch.dir("image"));
    for (names, lazy) in [(&EAGER[..], false), (&LAZY[..], true)] {
        for name in names {
            for own_names in [false, true] {
                let model = a_model(lazy.then_some(&image), own_names, None);
                let trace = Trace::named(name);
                let report = replay(&trace, &image, &target(model.socket()), &options()).unwrap();
                report.assert_same();
                assert_eq!(report.lines, trace.lines.len());
                assert_eq!(report.unpacked, if lazy { 0 } else { 4 }, "{name}");
                let runs = trace.lines.iter().any(|line| match &line.call {
                    Call::Prepare { key, .. } => !key.contains("sha256:"),
                    _ => false,
                });
                assert_eq!(report.trees > 0, runs, "{name}");
            }
        }
    }
}

/// Containerd's own overlays know nothing of lazy layers or of parents that come late.
#[test]
fn containerds_own_overlays_answer_as_was_recorded() {
    let Some(containerd) = Containerd::start(&[]) else {
        return;
    };
    let scratch = Scratch::new();
    let image = an_image(&scratch.dir("image"));
    for name in EAGER.iter().filter(|name| !name.contains("rebase")) {
        // In a namespace of its own, which has no name of another trace yet.
        let mut trace = Trace::named(name);
        for line in &mut trace.lines {
            line.namespace = Some((*name).replace('.', "-"));
        }
        let namespace = trace.lines[0].namespace.clone().unwrap();
        let lease = containerd.lease(&namespace);
        let target = Target::new(containerd.socket(), "overlayfs", &namespace).leased(&lease);
        let report = replay(&trace, &image, &target, &options()).unwrap();
        report.assert_same();
        assert_eq!(report.unpacked, 4);
    }
}

#[test]
fn every_fault_that_a_trace_touches_is_found() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    let image = an_image(&scratch.dir("image"));
    #[track_caller]
    fn check(image: &Image, name: &str, fault: Fault, line: usize, words: &str) {
        let lazy = LAZY.contains(&name);
        let model = a_model(lazy.then_some(image), true, Some(fault));
        let target = target(model.socket());
        let report = replay(&Trace::named(name), image, &target, &options()).unwrap();
        let first = report.differences.first().map(ToString::to_string);
        let first = first.unwrap_or_else(|| panic!("{name}: {fault:?} was not found"));
        assert!(
            first.starts_with(&format!("line {line}, ")) && first.contains(words),
            "{name}: {fault:?}: {first}"
        );
    }
    let [lazy_build, run] = LAZY;
    let [build, plain, _, pull, rebase] = EAGER;
    let remote = "label containerd.io/snapshot/remote:";
    check(&image, run, Fault::ForgetsRemote, 3, remote);
    check(&image, run, Fault::ForgetsLabels, 2, "expected 1 snapshots");
    check(&image, run, Fault::AddsLabels, 3, "label surprise");
    check(&image, run, Fault::IgnoresFilters, 5, "expected 1 snap");
    check(&image, run, Fault::ListsTooFew, 2, "expected 1 snapshots");
    check(&image, run, Fault::NeverLazy, 1, "expected AlreadyExists");
    check(&image, lazy_build, Fault::KeepsTimes, 19, "updated_at");
    check(&image, lazy_build, Fault::WritesViews, 94, "read only");
    check(&image, plain, Fault::ForgetsParents, 25, "parent: expected");
    check(&image, build, Fault::LosesWrites, 23, "is missing");
    check(&image, build, Fault::WritesViews, 27, "read only");
    check(&image, build, Fault::MovesWrites, 11, "another snapshot's");
    check(&image, pull, Fault::MovesWrites, 3, "another snapshot's");
    check(&image, rebase, Fault::ForgetsCommitLabels, 9, "label");
}

#[test]
fn a_conversation_that_went_astray_ends() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    let image = an_image(&scratch.dir("image"));
    let model = a_model(None, false, None);
    let trace = Trace::named(LAZY[1]);
    let report = replay(&trace, &image, &target(model.socket()), &options()).unwrap();
    assert_eq!((report.stopped_at, report.lines), (Some(1), 1));
    // And where layers are lazy that were not.
    let model = a_model(Some(&image), false, None);
    let trace = Trace::named(EAGER[3]);
    let report = replay(&trace, &image, &target(model.socket()), &options()).unwrap();
    assert_eq!(report.stopped_at, Some(1));
}
