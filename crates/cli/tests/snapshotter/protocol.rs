//! What clients say to a snapshotter, answered as they expect it.

use std::os::unix::fs::PermissionsExt as _;

use draught_testkit::compare::Applied;
use draught_testkit::snapshots::replay::{Image, Options, Report, Trace, replay};
use draught_testkit::snapshots::{Target, conformance};

use crate::stage::{BASE, Form, MIDDLE, Stage, TOP, archive};

#[test]
fn it_is_a_snapshotter_as_containerd_knows_them() {
    let Some(stage) = Stage::new() else { return };
    let target = Target::new(&stage.socket(), "draught", "default");
    let options = conformance::Options {
        rebase: true,
        ..conformance::Options::default()
    };
    conformance::run(&target, &options).assert_all_passed();
    // Nobody else may ask.
    for socket in [stage.socket(), stage.images_socket()] {
        let mode = fs_err::metadata(socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }
}

#[test]
fn it_is_one_through_containerd_too() {
    let Some(stage) = Stage::new() else { return };
    // Without a lease, containerd collects what is only being tried.
    let lease = stage.containerd.lease("default");
    let target = Target::new(stage.containerd.socket(), "draught", "default").leased(&lease);
    let options = conformance::Options::default();
    conformance::run(&target, &options).assert_all_passed();
}

/// An image of four layers, as the recorded clients had one, and what is in it.
fn image(stage: &Stage, form: Form, unpacked: bool) -> (String, Image, Options) {
    let scratch = &stage.scratch;
    let last = "mkdir -p etc; echo four > etc/four; ln -s four etc/link";
    let archives = [
        archive(scratch, "base", BASE),
        archive(scratch, "middle", MIDDLE),
        archive(scratch, "top", TOP),
        archive(scratch, "last", last),
    ];
    let layers: Vec<_> = archives.iter().map(|it| (form, it.as_slice())).collect();
    let name = "traced:1";
    let reference = stage.push(name, &layers);
    let image = Image::of_layout(&reference, &stage.layout(name)).unwrap();
    let mut applied = Applied::default();
    for (archive, layer) in archives.iter().zip(&image.layers) {
        let archive: Box<dyn std::io::Read> = if unpacked {
            // With what its form puts beside the files.
            layer.archive().unwrap().unwrap()
        } else {
            Box::new(archive.as_slice())
        };
        applied.layer(archive).unwrap();
    }
    let options = Options {
        own_labels: Some("dev.draught.".to_owned()),
        tree: Some(applied.snapshot()),
    };
    (reference, image, options)
}

fn replayed(
    trace: &str,
    form: Form,
    unpacked: bool,
    prepare: impl FnOnce(&Stage),
) -> Option<(Stage, Report)> {
    let stage = Stage::new()?;
    let (_, image, options) = image(&stage, form, unpacked);
    prepare(&stage);
    let target = Target::new(&stage.socket(), "draught", "default");
    let report = replay(&Trace::named(trace), &image, &target, &options).unwrap();
    report.assert_same();
    Some((stage, report))
}

#[test]
fn lazy_pulls_of_containerd_are_answered_as_recorded() {
    let trace = "containerd-1.6-ctr-remote-rpull-and-run";
    let Some((stage, report)) = replayed(trace, Form::Lazy, false, |_| {}) else {
        return;
    };
    assert!(report.mounted > 0 && report.trees > 0, "{report:?}");
    let layers = stage.layers("127.0.0.1");
    assert!(
        layers.len() == 4 && layers.values().all(|(lazy, _)| *lazy),
        "{layers:?}"
    );
}

#[test]
fn eager_pulls_of_containerd_are_answered_as_recorded() {
    let trace = "containerd-2.1-transfer-plain-gzip";
    let Some((_, report)) = replayed(trace, Form::Plain, true, |_| {}) else {
        return;
    };
    assert_eq!(report.unpacked, 4);
}

#[test]
fn parallel_pulls_of_containerd_are_answered_as_recorded() {
    let trace = "containerd-2.3-parallel-unpack-rebase";
    let Some((stage, report)) = replayed(trace, Form::Plain, true, |_| {}) else {
        return;
    };
    assert!(report.unpacked == 4 && report.trees > 0, "{report:?}");
    assert!(stage.log().contains("rebase"), "{}", stage.log());
}

#[test]
fn lazy_builds_of_buildkit_are_answered_as_recorded() {
    let trace = "buildkit-0.32-stargz-name-lazy-esgz";
    let Some((_, report)) = replayed(trace, Form::Lazy, false, |_| {}) else {
        return;
    };
    assert!(report.mounted > 0 && report.unpacked == 0, "{report:?}");
}

#[test]
fn eager_builds_of_buildkit_are_answered_as_recorded() {
    for trace in [
        "buildkit-0.32-other-name-no-labels",
        "buildkit-0.32-stargz-name-plain-gzip",
    ] {
        let Some((_, report)) = replayed(trace, Form::Plain, true, |_| {}) else {
            return;
        };
        assert!(report.unpacked > 0, "{report:?}");
    }
}

#[test]
fn a_build_of_buildkit_goes_on_without_the_registry() {
    let trace = "buildkit-0.32-stargz-name-remote-prepare-fails";
    let down = |stage: &Stage| stage.registry.proxy().go_down();
    let Some((stage, report)) = replayed(trace, Form::Lazy, true, down) else {
        return;
    };
    assert!(report.unpacked > 0, "{report:?}");
    assert!(stage.log().contains("can't be had here"), "{}", stage.log());
}
