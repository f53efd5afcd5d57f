//! Whole planners in simulated time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use draught_digest::{Algorithm, Digest};
use draught_tree::{
    Blob, BlobId, BlobOffset, Chunk, ChunkMap, ChunkOffset, Compression, DeviceOffset, Extent,
};
use proptest::prelude::*;

use crate::*;

const BLOCK: u64 = 4096;

/// A blob of extents of one chunk of one block each, 1000 stored bytes apart; each is a file of its own
/// but for the first, which is larger than all others.
fn map(extents: u32) -> Arc<DeviceMap> {
    let mut map = ChunkMap::default();
    let digest = Digest::new(Algorithm::Sha256, [7; 32]);
    map.push_blob(Blob {
        digest,
        stored_bytes: u64::from(extents) * 1000,
        device_bytes: u64::from(extents) * BLOCK,
    });
    for index in 0..extents {
        let extent = map.push_extent(Extent {
            blob: BlobId(0),
            offset: BlobOffset(u64::from(index) * 1000),
            stored_bytes: 1000,
            decoded_bytes: 4096,
            compression: Compression::Zstd,
        });
        map.push_chunk(Chunk {
            digest,
            extent: extent.unwrap(),
            offset: ChunkOffset(0),
            bytes: if index == 0 { 4096 } else { 4000 },
            place: DeviceOffset(u64::from(index) * BLOCK),
        });
    }
    Arc::new(DeviceMap::new(&map, BlobId(0)).unwrap())
}

fn planner(devices: u32, extents: u32, settings: Settings) -> Planner {
    let mut planner = Planner::new(settings);
    for device in 0..devices {
        planner.add_device(DeviceId(device), map(extents), |_| false);
    }
    planner
}

fn fault(device: u32, blocks: Range<u64>, token: u64) -> Fault {
    Fault {
        device: DeviceId(device),
        range: blocks.start * BLOCK..blocks.end * BLOCK,
        token,
    }
}

fn fetches(planner: &mut Planner, now_ms: u64) -> Vec<Fetch> {
    std::iter::from_fn(|| planner.next_fetch(now_ms)).collect()
}

fn readies(planner: &mut Planner) -> Vec<Ready> {
    std::iter::from_fn(|| planner.next_ready()).collect()
}

fn ok(token: u64) -> Ready {
    Ready {
        token,
        result: Ok(()),
    }
}

const DOWN: Failure = Failure::Unavailable {
    retry_after_ms: None,
};

#[test]
fn a_fault_fetches_what_covers_it_in_one_request_and_nothing_more() {
    let mut planner = planner(1, 100, Settings::default());
    planner.fault(0, fault(0, 10..14, 1));
    let [fetch] = &fetches(&mut planner, 0)[..] else {
        panic!("one fetch")
    };
    assert_eq!(fetch.extents, 10..14);
    assert_eq!(fetch.range, 10_000..14_000);
    planner.fetched(1, fetch.id, Ok(vec![]));
    assert_eq!(readies(&mut planner), [ok(1)]);
    planner.fault(2, fault(0, 11..13, 2));
    assert_eq!(readies(&mut planner), [ok(2)]);
    assert_eq!(fetches(&mut planner, 2), []);
}

#[test]
fn faults_join_a_fetch_under_way() {
    let mut planner = planner(1, 100, Settings::default());
    planner.fault(0, fault(0, 10..14, 1));
    let first = fetches(&mut planner, 0);
    planner.fault(0, fault(0, 12..16, 2));
    let second = fetches(&mut planner, 0);
    assert_eq!(second[0].extents, 14..16);
    planner.fetched(1, second[0].id, Ok(vec![]));
    assert_eq!(readies(&mut planner), []);
    planner.fetched(1, first[0].id, Ok(vec![]));
    assert_eq!(readies(&mut planner), [ok(1), ok(2)]);
}

#[test]
fn a_corrupt_extent_fails_its_readers_and_not_its_neighbours() {
    let mut planner = planner(1, 100, Settings::default());
    planner.fault(0, fault(0, 10..11, 1));
    planner.fault(0, fault(0, 11..12, 2));
    let mut now_ms = 0;
    for attempt in 0..3 {
        let [fetch] = &fetches(&mut planner, now_ms)[..] else {
            panic!("one fetch")
        };
        planner.fetched(now_ms, fetch.id, Ok(vec![(10, Failure::Corrupt)]));
        let ready = readies(&mut planner);
        match attempt {
            0 => assert_eq!(ready, [ok(2)]),
            1 => assert_eq!(ready, []),
            _ => assert_eq!(
                ready,
                [Ready {
                    token: 1,
                    result: Err(Failure::Corrupt)
                }]
            ),
        }
        now_ms += 10_000;
    }
    // Once the blob is repaired, the next reader gets it.
    planner.fault(now_ms, fault(0, 10..11, 3));
    let [fetch] = &fetches(&mut planner, now_ms)[..] else {
        panic!("one fetch")
    };
    planner.fetched(now_ms, fetch.id, Ok(vec![]));
    assert_eq!(readies(&mut planner), [ok(3)]);
}

#[test]
fn a_source_that_is_down_is_retried_until_the_deadline_and_not_in_a_hurry() {
    let settings = Settings::default();
    let mut planner = planner(1, 10, settings);
    planner.fault(0, fault(0, 0..1, 1));
    let (mut now_ms, mut attempts) = (0, 0);
    let failed = loop {
        for fetch in fetches(&mut planner, now_ms) {
            attempts += 1;
            planner.fetched(now_ms, fetch.id, Err(DOWN));
        }
        if let Some(ready) = planner.next_ready() {
            break ready;
        }
        now_ms = planner.next_timeout().unwrap();
        planner.timeout(now_ms);
    };
    assert_eq!(
        failed,
        Ready {
            token: 1,
            result: Err(DOWN)
        }
    );
    assert_eq!(now_ms, settings.deadline_ms);
    assert!((10..40).contains(&attempts), "{attempts} attempts");
    // Who comes next is not made to wait: a reader raises many faults before it sees the first error.
    planner.fault(now_ms, fault(0, 1..2, 2));
    let failed = Ready {
        token: 2,
        result: Err(DOWN),
    };
    assert_eq!(readies(&mut planner), [failed]);
    // It heals without anybody's help.
    now_ms += settings.backoff_max_ms;
    planner.timeout(now_ms);
    planner.fault(now_ms, fault(0, 0..1, 2));
    let [fetch] = &fetches(&mut planner, now_ms)[..] else {
        panic!("one fetch")
    };
    planner.fetched(now_ms, fetch.id, Ok(vec![]));
    assert_eq!(readies(&mut planner), [ok(2)]);
}

#[test]
fn a_full_disk_is_told_at_once() {
    let mut planner = planner(1, 10, Settings::default());
    planner.fault(0, fault(0, 0..2, 1));
    let fetch = fetches(&mut planner, 0).remove(0);
    planner.fetched(0, fetch.id, Ok(vec![(1, Failure::NoSpace)]));
    assert_eq!(
        readies(&mut planner),
        [Ready {
            token: 1,
            result: Err(Failure::NoSpace)
        }]
    );
}

#[test]
fn one_slow_source_does_not_delay_another() {
    let mut planner = planner(2, 1000, Settings::default());
    for token in 0..100 {
        planner.fault(0, fault(0, token * 10..token * 10 + 1, token));
    }
    let stuck = fetches(&mut planner, 0);
    assert_eq!(stuck.len(), Settings::default().fetches_per_device_max);
    planner.fault(0, fault(1, 0..1, 1000));
    assert_eq!(fetches(&mut planner, 0)[0].device, DeviceId(1));
}

#[test]
fn demand_comes_before_prefetch_and_that_before_background() {
    let settings = Settings {
        fetches_max: 1,
        ..Settings::default()
    };
    let mut planner = planner(1, 100, settings);
    planner.prefetch(DeviceId(0), 50..51, Priority::Background);
    planner.prefetch(DeviceId(0), 70..71, Priority::Prefetch);
    planner.fault(0, fault(0, 90..91, 1));
    let mut order = Vec::new();
    while let Some(fetch) = planner.next_fetch(0) {
        order.push((fetch.extents.start, fetch.priority));
        planner.fetched(0, fetch.id, Ok(vec![]));
    }
    let expect = [
        (90, Priority::Demand),
        (70, Priority::Prefetch),
        (50, Priority::Background),
    ];
    assert_eq!(order, expect);
}

#[test]
fn a_sequential_reader_is_fetched_ahead_of_and_a_random_one_is_not() {
    let mut planner = planner(1, 1000, Settings::default());
    let mut sizes = Vec::new();
    for block in 0..40 {
        planner.fault(0, fault(0, block..block + 1, block));
        for fetch in fetches(&mut planner, 0) {
            sizes.push(fetch.extents.len());
            planner.fetched(0, fetch.id, Ok(vec![]));
        }
        assert_eq!(readies(&mut planner), [ok(block)]);
    }
    assert_eq!(sizes[..8], [1; 8]);
    assert!(sizes.len() < 20, "{sizes:?}");
    for block in [500, 700, 600, 900, 800, 550, 750, 650, 950, 850, 525, 725] {
        planner.fault(0, fault(0, block..block + 1, block));
        let fetch = fetches(&mut planner, 0).remove(0);
        assert_eq!(fetch.extents.len(), 1);
        planner.fetched(0, fetch.id, Ok(vec![]));
    }
}

#[test]
fn a_sequential_reader_raises_few_faults() {
    let mut planner = planner(1, 1000, Settings::default());
    let mut present = 0;
    let mut faults = 0;
    for block in 0..1000 {
        // What is present is read without anybody being asked.
        if block < present {
            continue;
        }
        faults += 1;
        planner.fault(0, fault(0, block..block + 1, block));
        for fetch in fetches(&mut planner, 0) {
            present = present.max(u64::from(fetch.extents.end));
            planner.fetched(0, fetch.id, Ok(vec![]));
        }
        assert_eq!(readies(&mut planner), [ok(block)]);
    }
    // One a file until it is known for what it is; then each fetch is as large as all before.
    assert!(faults < 8 + 10, "{faults}");
}

#[test]
fn a_reader_of_one_large_file_gets_no_more_than_the_file() {
    let mut chunk_map = ChunkMap::default();
    let digest = Digest::new(Algorithm::Sha256, [7; 32]);
    chunk_map.push_blob(Blob {
        digest,
        stored_bytes: 100_000,
        device_bytes: 100 * BLOCK,
    });
    for index in 0..100 {
        let extent = chunk_map.push_extent(Extent {
            blob: BlobId(0),
            offset: BlobOffset(index * 1000),
            stored_bytes: 1000,
            decoded_bytes: 4096,
            compression: Compression::Zstd,
        });
        // The file is the first 61 chunks.
        let bytes = if index < 60 { 4096 } else { 100 };
        chunk_map.push_chunk(Chunk {
            digest,
            extent: extent.unwrap(),
            offset: ChunkOffset(0),
            bytes,
            place: DeviceOffset(index * BLOCK),
        });
    }
    let mut planner = Planner::new(Settings::default());
    let map = Arc::new(DeviceMap::new(&chunk_map, BlobId(0)).unwrap());
    planner.add_device(DeviceId(0), map, |_| false);
    for block in 0..61 {
        planner.fault(0, fault(0, block..block + 1, block));
        for fetch in fetches(&mut planner, 0) {
            assert!(fetch.extents.end <= 61, "{fetch:?}");
            planner.fetched(0, fetch.id, Ok(vec![]));
        }
    }
}

#[test]
fn a_removed_device_fails_its_readers_and_a_late_report_changes_nothing() {
    let mut planner = planner(1, 10, Settings::default());
    planner.fault(0, fault(0, 0..1, 1));
    let fetch = fetches(&mut planner, 0).remove(0);
    planner.remove_device(DeviceId(0));
    assert_eq!(
        readies(&mut planner),
        [Ready {
            token: 1,
            result: Err(Failure::Device)
        }]
    );
    planner.fetched(0, fetch.id, Ok(vec![]));
    assert_eq!(readies(&mut planner), []);
}

#[test]
fn who_is_cancelled_gets_no_answer_and_is_not_fetched_for() {
    let mut planner = planner(1, 10, Settings::default());
    planner.fault(0, fault(0, 0..1, 1));
    planner.cancel(1);
    assert_eq!(fetches(&mut planner, 0), []);
    planner.timeout(1_000_000);
    assert_eq!(readies(&mut planner), []);
}

#[test]
fn ten_thousand_faults_on_one_extent_are_one_fetch() {
    let mut planner = planner(1, 10, Settings::default());
    for token in 0..10_000 {
        planner.fault(0, fault(0, 3..4, token));
    }
    let fetch = fetches(&mut planner, 0);
    assert_eq!(fetch.len(), 1);
    planner.fetched(0, fetch[0].id, Ok(vec![]));
    assert_eq!(readies(&mut planner).len(), 10_000);
}

#[test]
fn what_a_device_lost_is_fetched_again() {
    let mut planner = planner(1, 8, Settings::default());
    planner.fault(0, fault(0, 0..4, 1));
    let fetch = fetches(&mut planner, 0);
    planner.fetched(0, fetch[0].id, Ok(vec![]));
    assert_eq!(readies(&mut planner), [ok(1)]);
    // Blocks 2 and 3 turn out not to be on the disk.
    planner.recheck(DeviceId(0), &(0..4 * BLOCK), |range| range.end <= 2 * BLOCK);
    planner.fault(1, fault(0, 0..2, 2));
    assert_eq!(
        (readies(&mut planner), fetches(&mut planner, 1)),
        (vec![ok(2)], vec![])
    );
    planner.fault(1, fault(0, 0..4, 3));
    let again = fetches(&mut planner, 1);
    assert_eq!((again.len(), again[0].extents.clone()), (1, 2..4));
    planner.fetched(1, again[0].id, Ok(vec![]));
    assert_eq!(readies(&mut planner), [ok(3)]);
}

#[test]
fn maps_that_lie_are_refused() {
    type Bend = fn(&mut ChunkMap);
    let bends: [(&str, Bend); 8] = [
        ("unaligned", |map| map.chunks[1].place = DeviceOffset(5000)),
        ("outside of the device", |map| {
            map.chunks[1].place = DeviceOffset(1 << 40)
        }),
        ("two in one block", |map| {
            map.chunks[1].place = DeviceOffset(0)
        }),
        ("outside of the extent", |map| map.chunks[1].bytes = 5000),
        ("empty", |map| map.chunks[1].bytes = 0),
        ("larger than can be decoded", |map| {
            map.extents[1].decoded_bytes = u32::MAX
        }),
        ("larger than can be fetched", |map| {
            map.blobs[0].stored_bytes = 1 << 40;
            map.extents[1].stored_bytes = u32::MAX;
        }),
        ("outside of the blob", |map| {
            map.extents[1].offset = BlobOffset(1 << 50)
        }),
    ];
    for (name, bend) in bends {
        let mut chunk_map = ChunkMap::default();
        let digest = Digest::new(Algorithm::Sha256, [7; 32]);
        chunk_map.push_blob(Blob {
            digest,
            stored_bytes: 2000,
            device_bytes: 2 * BLOCK,
        });
        for index in 0..2 {
            let extent = chunk_map.push_extent(Extent {
                blob: BlobId(0),
                offset: BlobOffset(index * 1000),
                stored_bytes: 1000,
                decoded_bytes: 4096,
                compression: Compression::Zstd,
            });
            chunk_map.push_chunk(Chunk {
                digest,
                extent: extent.unwrap(),
                offset: ChunkOffset(0),
                bytes: 4000,
                place: DeviceOffset(index * BLOCK),
            });
        }
        assert!(DeviceMap::new(&chunk_map, BlobId(0)).is_ok());
        bend(&mut chunk_map);
        assert!(
            DeviceMap::new(&chunk_map, BlobId(0)).is_err(),
            "{name} was taken"
        );
    }
}

/// What happens next in a generated schedule.
#[derive(Debug, Clone)]
enum Step {
    Fault {
        device: u32,
        start: u64,
        blocks: u64,
    },
    Prefetch {
        device: u32,
        start: u32,
        extents: u32,
    },
    Report {
        which: usize,
        failures: Vec<(u32, u8)>,
        whole: Option<u8>,
    },
    Wait {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3u32, 0..50u64, 1..8u64)
            .prop_map(|(device, start, blocks)| Step::Fault { device, start, blocks }),
        1 => (0..3u32, 0..50u32, 1..20u32)
            .prop_map(|(device, start, extents)| Step::Prefetch { device, start, extents }),
        5 => (
            0..16usize,
            proptest::collection::vec((0..58u32, 0..5u8), 0..3),
            proptest::option::weighted(0.2, 0..5u8),
        )
            .prop_map(|(which, failures, whole)| Step::Report { which, failures, whole }),
        2 => (0..5000u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

fn failure(kind: u8) -> Failure {
    match kind {
        0 => DOWN,
        1 => Failure::Refused,
        2 => Failure::Corrupt,
        3 => Failure::NoSpace,
        _ => Failure::Unavailable {
            retry_after_ms: Some(700),
        },
    }
}

/// What must hold whatever happens, checked from outside.
#[derive(Default)]
struct Model {
    open: BTreeMap<u64, (u32, Range<u32>)>,
    present: BTreeSet<(u32, u32)>,
    under_way: Vec<Fetch>,
}

impl Model {
    fn drain(&mut self, planner: &mut Planner, now_ms: u64) {
        while let Some(fetch) = planner.next_fetch(now_ms) {
            for extent in fetch.extents.clone() {
                let device = fetch.device.0;
                assert!(
                    !self.present.contains(&(device, extent)),
                    "fetched what is present"
                );
                let twice = self
                    .under_way
                    .iter()
                    .any(|other| other.device == fetch.device && other.extents.contains(&extent));
                assert!(!twice, "extent {extent} fetched twice at once");
            }
            self.under_way.push(fetch);
        }
        assert!(self.under_way.len() <= Settings::default().fetches_max);
        while let Some(ready) = planner.next_ready() {
            let (device, mut extents) = self.open.remove(&ready.token).expect("one answer each");
            if ready.result.is_ok() {
                let all = extents.all(|extent| self.present.contains(&(device, extent)));
                assert!(all, "answered before all was there");
            }
        }
    }

    fn report(
        &mut self,
        planner: &mut Planner,
        now_ms: u64,
        which: usize,
        failures: &[(u32, u8)],
        whole: Option<u8>,
    ) {
        if self.under_way.is_empty() {
            return;
        }
        let fetch = self.under_way.remove(which % self.under_way.len());
        let result = match whole {
            Some(kind) => Err(failure(kind)),
            None => {
                let failed = failures
                    .iter()
                    .filter(|(extent, _)| fetch.extents.contains(extent));
                Ok(failed
                    .map(|(extent, kind)| (*extent, failure(*kind)))
                    .collect::<Vec<_>>())
            }
        };
        if let Ok(failed) = &result {
            for extent in fetch.extents.clone() {
                if failed.iter().all(|(other, _)| *other != extent) {
                    self.present.insert((fetch.device.0, extent));
                }
            }
        }
        planner.fetched(now_ms, fetch.id, result);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn every_fault_gets_one_true_answer(steps in proptest::collection::vec(step(), 1..80)) {
        let mut planner = planner(3, 58, Settings::default());
        let mut model = Model::default();
        let (mut now_ms, mut token) = (0, 0);
        for step in steps {
            match step {
                Step::Fault { device, start, blocks } => {
                    let end = u32::try_from(start + blocks).unwrap();
                    model.open.insert(token, (device, u32::try_from(start).unwrap()..end));
                    planner.fault(now_ms, fault(device, start..start + blocks, token));
                    token += 1;
                }
                Step::Prefetch { device, start, extents } => {
                    planner.prefetch(DeviceId(device), start..start + extents, Priority::Prefetch);
                }
                Step::Report { which, failures, whole } => {
                    model.report(&mut planner, now_ms, which, &failures, whole);
                }
                Step::Wait { ms } => {
                    now_ms += ms;
                    planner.timeout(now_ms);
                }
            }
            model.drain(&mut planner, now_ms);
        }
        // From here on every fetch succeeds: everybody gets an answer, without waiting for deadlines
        // for longer than the longest back-off.
        let end_ms = now_ms + Settings::default().backoff_max_ms;
        while !model.open.is_empty() {
            if model.under_way.is_empty() {
                now_ms = planner.next_timeout().expect("somebody waits, so something is due");
                prop_assert!(now_ms <= end_ms, "still waiting at {now_ms}");
                planner.timeout(now_ms);
            } else {
                model.report(&mut planner, now_ms, 0, &[], None);
            }
            model.drain(&mut planner, now_ms);
        }
    }
}
