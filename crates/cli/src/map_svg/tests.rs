//! What is promised of the whole picture, whatever the trace.

use draught_node::{ImageTrace, TraceArea, TraceBlob, TraceFault, TraceFetch, TracePriority};
use proptest::prelude::*;

use super::{example, svg};

/// The picture as a document. It must be well formed.
#[track_caller]
fn parsed(text: &str) -> roxmltree::Document<'_> {
    match roxmltree::Document::parse(text) {
        Ok(document) => document,
        Err(error) => panic!("the picture is no XML: {error}"),
    }
}

fn number(node: &roxmltree::Node<'_, '_>, name: &str) -> f64 {
    node.attribute(name)
        .map_or(0.0, |text| text.parse().unwrap())
}

/// Checks what holds for every picture: it is XML, refers to nothing outside, and no shape leaves it.
#[track_caller]
fn check_picture(text: &str) {
    let document = parsed(text);
    let root = document.root_element();
    let (width, height) = (number(&root, "width"), number(&root, "height"));
    assert_eq!(width, 1200.0);
    assert!((300.0..2600.0).contains(&height), "{height}");
    let in_defs =
        |node: &roxmltree::Node<'_, '_>| node.ancestors().any(|it| it.has_tag_name("defs"));
    for node in document.descendants() {
        let name = node.tag_name().name();
        assert!(!["script", "image", "foreignObject", "a"].contains(&name));
        if name == "rect" && !in_defs(&node) {
            let right = number(&node, "x") + number(&node, "width");
            let bottom = number(&node, "y") + number(&node, "height");
            assert!(right <= width + 0.02 && bottom <= height + 0.02, "{node:?}");
            assert!(number(&node, "x") >= 0.0 && number(&node, "y") >= 0.0);
        }
        for attribute in node.attributes().filter(|it| it.value().contains('.')) {
            let decimals = attribute.value().rsplit('.').next().unwrap();
            let plain = attribute.value().parse::<f64>().is_ok();
            assert!(!plain || decimals.len() <= 3, "{attribute:?}");
        }
    }
}

/// How many rectangles of the map there are.
fn map_rects(text: &str) -> usize {
    let (_, map) = text.split_once(">What is in it<").unwrap();
    map.matches("<rect").count()
}

/// Compares with a file of the repository, or writes it.
#[track_caller]
fn check_golden(file: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs_err::write(&path, text).unwrap();
    }
    let expected = fs_err::read_to_string(&path).unwrap();
    let differs = expected.lines().zip(text.lines()).find(|(a, b)| a != b);
    assert!(
        expected == text,
        "{file} differs: {differs:?}; look at the new picture (UPDATE_GOLDEN=1 writes it)"
    );
}

/// A trace with one of everything.
fn small() -> ImageTrace {
    let area = |path, bytes, present, shared, touched_at_ms| TraceArea {
        present,
        shared,
        touched_at_ms,
        ..example::area(path, bytes)
    };
    let mut trace = ImageTrace {
        reference: "localhost:5000/small:1".to_owned(),
        digest: "sha256:1f2e3d4c5b6a79880123".to_owned(),
        transport: "fanotify".to_owned(),
        age_ms: 4200,
        bytes_total: 69_632,
        bytes_present: 40_960,
        bytes_fetched: 20_000,
        bytes_shared: 8192,
        blobs: vec![TraceBlob {
            digest: "sha256:00aa11bb22cc33dd".to_owned(),
            stored_bytes: 50_000,
            source: "http://localhost:5000".to_owned(),
        }],
        fetches: vec![
            example::fetch(10, 40, 12_000),
            example::fetch(30, 200, 8000),
        ],
        faults: vec![
            example::fault(9, 41_500, "bin/sh"),
            example::fault(30, 201_000, "lib/<odd> & \"named\"\n.so"),
            example::fault(240, 900, "bin/sh"),
        ],
        areas: vec![
            area("bin/sh", 20_000, 20_000, 0, Some(9)),
            area("lib/<odd> & \"named\"\n.so", 24_000, 12_000, 0, Some(30)),
            area("lib/ahead.so", 8192, 8192, 0, None),
            area("lib/shared.so", 8192, 8192, 8192, None),
            area("usr/nothing", 9000, 0, 0, None),
            area("usr/empty", 0, 0, 0, None),
        ],
        dropped: 3,
    };
    trace.fetches[1].priority = TracePriority::Prefetch;
    trace.fetches[1].ok = false;
    trace.faults[1].ok = false;
    trace
}

#[test]
fn a_small_trace_looks_as_it_did() {
    let text = svg(&small());
    check_picture(&text);
    check_golden("tests/data/map.svg", &text);
}

#[test]
fn the_picture_in_the_documentation_is_ours() {
    let text = svg(&example::realistic());
    check_picture(&text);
    assert!(text.len() < 300_000, "{} bytes", text.len());
    check_golden("../../docs/map.svg", &text);
}

#[test]
fn nothing_is_a_picture_too() {
    let text = svg(&example::empty());
    check_picture(&text);
    for words in [
        "Nothing was requested.",
        "No read waited.",
        "There is no content.",
    ] {
        assert!(text.contains(words), "{words}");
    }
}

#[test]
fn numbers_that_are_too_large_to_be_true_are_drawn() {
    let mut trace = small();
    for area in &mut trace.areas {
        (area.bytes, area.present, area.shared) = (u64::MAX, u64::MAX, u64::MAX);
        area.touched_at_ms = Some(u64::MAX);
    }
    trace.faults[0].waited_us = u64::MAX;
    trace.fetches[0].took_ms = u64::MAX;
    trace.fetches[0].bytes = u64::MAX;
    trace.fetches[1].blob = u32::MAX;
    (trace.age_ms, trace.bytes_present) = (u64::MAX, u64::MAX);
    check_picture(&svg(&trace));
}

/// The realistic trace, many times over.
fn large() -> ImageTrace {
    let mut trace = example::realistic();
    let (areas, fetches, faults) = (trace.areas, trace.fetches, trace.faults);
    let areas = areas.iter().cycle().zip(0..500_000_usize);
    trace.areas = areas
        .map(|(area, at)| TraceArea {
            path: format!("opt/{}/{}", at / 3000, area.path),
            ..area.clone()
        })
        .collect();
    let fetches = fetches.iter().cycle().zip(0..8192_u64);
    let fetches = fetches.map(|(fetch, at)| TraceFetch {
        at_ms: fetch.at_ms + at * 7 % 1013,
        ..*fetch
    });
    trace.fetches = fetches.collect();
    let faults = faults.iter().cycle().zip(0..8192_u64);
    let faults = faults.map(|(fault, at)| TraceFault {
        at_ms: fault.at_ms + at * 7 % 1013,
        ..fault.clone()
    });
    trace.faults = faults.collect();
    trace
}

#[test]
fn half_a_million_files_make_a_picture_of_bounded_size() {
    let trace = large();
    let text = svg(&trace);
    assert!(text.len() < 3_000_000, "{} bytes", text.len());
    assert!(map_rects(&text) < 4300, "{}", map_rects(&text));
    check_picture(&text);
}

#[test]
fn hostile_names_do_not_make_it_larger() {
    let mut trace = large();
    let name = "<&>\u{0}\u{202e}\u{10ffff}\"'".repeat(20);
    for area in &mut trace.areas {
        area.path = format!("{}/{name}", area.path);
    }
    for fault in &mut trace.faults {
        fault.path.clone_from(&name);
    }
    let text = svg(&trace);
    assert!(text.len() < 3_000_000, "{} bytes", text.len());
    check_picture(&text);
}

#[test]
fn half_a_million_directories_are_bounded_too() {
    let mut trace = example::empty();
    let areas = (0..500_000_u64).map(|at| TraceArea {
        path: format!("{}/{}/{at}/file", at / 70_000, at / 50),
        bytes: 1 + at % 5000,
        present: at % 3,
        shared: at % 2,
        touched_at_ms: (at % 5 == 0).then_some(at),
    });
    trace.areas = areas.collect();
    let text = svg(&trace);
    assert!(map_rects(&text) < 4300, "{}", map_rects(&text));
    check_picture(&text);
}

/// Paths of any characters, with slashes, markup and controls more often than chance has them.
fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-c]{1,3}",
        "[<>&\"'/\\\\\u{0}-\u{1f}\u{7f}-\u{9f}\u{202a}-\u{202e}\u{fffe}\u{ffff}]{0,6}",
        any::<String>(),
        Just("x".repeat(3000)),
        Just("]]>".to_owned()),
    ];
    prop::collection::vec(part, 0..5).prop_map(|parts| parts.join("/"))
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![0..5000_u64, 0..10_000_000_u64, any::<u64>()]
}

prop_compose! {
    fn any_fetch()(at_ms in time(), took_ms in time(), blob in 0..3_u32, start in any::<u64>(),
                   bytes in time(), which in 0..3_u8, ok in any::<bool>()) -> TraceFetch {
        let priority = match which {
            0 => TracePriority::Demand,
            1 => TracePriority::Prefetch,
            _ => TracePriority::Background,
        };
        TraceFetch { at_ms, took_ms, blob, start, bytes, priority, ok }
    }
}

prop_compose! {
    fn any_fault()(at_ms in time(), waited_us in time(), path in path(), offset in any::<u64>(),
                   bytes in time(), ok in any::<bool>()) -> TraceFault {
        TraceFault { at_ms, waited_us, path, offset, bytes, ok }
    }
}

prop_compose! {
    fn any_area()(path in path(), bytes in time(), present in time(), shared in time(),
                  touched_at_ms in prop::option::of(time())) -> TraceArea {
        TraceArea { path, bytes, present, shared, touched_at_ms }
    }
}

prop_compose! {
    fn any_trace()(reference in path(), digest in path(), transport in path(), source in path(),
                   numbers in any::<[u64; 6]>(),
                   fetches in prop::collection::vec(any_fetch(), 0..40),
                   faults in prop::collection::vec(any_fault(), 0..40),
                   areas in prop::collection::vec(any_area(), 0..80)) -> ImageTrace {
        let [age_ms, bytes_total, bytes_present, bytes_fetched, bytes_shared, dropped] = numbers;
        let blobs = vec![TraceBlob { digest: digest.clone(), stored_bytes: 1, source }];
        ImageTrace {
            reference, digest, transport, age_ms, bytes_total, bytes_present, bytes_fetched,
            bytes_shared, blobs, fetches, faults, areas, dropped,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_trace_is_a_picture_and_always_the_same(trace in any_trace()) {
        let text = svg(&trace);
        check_picture(&text);
        prop_assert!(text.len() < 200_000);
        prop_assert_eq!(text, svg(&trace));
    }
}
