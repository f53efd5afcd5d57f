//! A start of that image.

use draught_node::{ImageTrace, TraceFault, TraceFetch, TracePriority};

use super::files::{Dice, Planned, files};
use super::parts::{blob, empty, fault, fetch};

/// A start of a web service with data libraries, as it might be.
pub(crate) fn realistic() -> ImageTrace {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut trace = ImageTrace {
        reference: "registry.example.org/shop/recommender:2026.11".to_owned(),
        digest: "sha256:8f0c2b6e5d1a94c7b3e0f6a1d2c4587960bbfa13e7715d02c9a4e86f1b3d5c70"
            .to_owned(),
        transport: "fanotify".to_owned(),
        age_ms: 8640,
        blobs: vec![
            blob(
                "sha256:31f7c0a4be12",
                61_000_000,
                "https://registry.example.org",
            ),
            blob(
                "sha256:aa09d5e77b30",
                88_000_000,
                "node-7.cluster.example.org",
            ),
        ],
        ..empty()
    };
    let mut files = files(&mut dice);
    let mut order: Vec<usize> = (0..files.len())
        .filter(|at| files[*at].1.is_some())
        .collect();
    order.sort_by_key(|at| (files[*at].1, *at));
    // One reader after another, now and then two at a time; what it waits for is fetched, and what
    // lies beside that is fetched ahead.
    let mut now_us: u64 = 38_000;
    for at in order {
        let (area, _, percent) = &mut files[at];
        now_us += 1200 + dice.below(9000);
        area.touched_at_ms = Some(now_us / 1000);
        let wanted = area.bytes * *percent / 100;
        let left = wanted.saturating_sub(area.present);
        let here = area.present > 0 || (area.bytes < 400_000 && dice.below(100) < 38);
        area.present = wanted.max(area.present);
        if here {
            continue;
        }
        now_us = waited_for(&mut trace, &mut dice, &area.path, left, now_us);
    }
    let end_ms = now_us / 1000;
    for at in 0..22 {
        let at_ms = 1400 + at * (end_ms - 1500) / 22;
        trace.fetches.push(TraceFetch {
            priority: TracePriority::Background,
            ..fetch(at_ms, 120 + dice.below(160), 1_400_000)
        });
    }
    settle(&mut trace, files, &mut dice);
    trace
}

/// Reads so many bytes of a file, part by part, and returns what time it is then.
fn waited_for(
    trace: &mut ImageTrace,
    dice: &mut Dice,
    path: &str,
    mut left: u64,
    mut now_us: u64,
) -> u64 {
    let mut offset = 0;
    while left > 0 {
        let bytes = left.min(2_000_000 + dice.below(1_500_000));
        let slow = match dice.below(23) {
            0 => 140_000 + dice.below(160_000),
            _ => 0,
        };
        let took_us = 9000 + dice.below(14_000) + bytes / 26 + slow;
        let at_ms = now_us / 1000;
        trace.fetches.push(TraceFetch {
            blob: u32::try_from(dice.below(2)).unwrap(),
            start: dice.below(60_000_000),
            ok: dice.below(60) != 0,
            ..fetch(at_ms, took_us / 1000, bytes * 10 / 23)
        });
        trace.faults.push(TraceFault {
            offset,
            bytes: bytes.min(131_072),
            ..fault(at_ms, took_us + 700, path)
        });
        if dice.below(3) == 0 {
            let waited_us = took_us.saturating_sub(1500);
            trace.faults.push(fault(at_ms + 2, waited_us, path));
        }
        if dice.below(2) == 0 {
            trace.fetches.push(TraceFetch {
                priority: TracePriority::Prefetch,
                start: dice.below(60_000_000),
                ..fetch(
                    at_ms + 4,
                    30 + dice.below(90),
                    100_000 + dice.below(400_000),
                )
            });
        }
        now_us += took_us * if dice.below(4) == 0 { 35 } else { 90 } / 100;
        left -= bytes;
        offset += bytes;
    }
    now_us
}

/// Files as they are in the end: some are here because they lay beside others, some because another
/// image has them.
fn settle(trace: &mut ImageTrace, files: Vec<Planned>, dice: &mut Dice) {
    for (mut area, ..) in files {
        let near = area.path.contains("site-packages") || area.path.contains("python3.12/");
        let elsewhere = [
            "usr/share/perl",
            "usr/lib/git-core",
            "usr/bin/g",
            "libicu",
            "etc/ssl",
        ];
        if elsewhere.iter().any(|part| area.path.contains(part)) {
            area.shared = area.bytes;
            area.present = area.bytes;
        } else if area.touched_at_ms.is_none() && near && dice.below(100) < 40 {
            area.present = area.bytes;
        }
        trace.bytes_total += area.bytes.next_multiple_of(4096);
        trace.bytes_present += area.present.next_multiple_of(4096);
        trace.bytes_shared += area.shared.next_multiple_of(4096);
        trace.areas.push(area);
    }
    let ok = trace.fetches.iter().filter(|fetch| fetch.ok);
    trace.bytes_fetched = ok.map(|fetch| fetch.bytes).sum();
}
