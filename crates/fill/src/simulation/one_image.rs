//! One image at a time, and several that share nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use draught_digest::{Algorithm, Digest};
use draught_tree::{
    Blob, BlobId, BlobOffset, Chunk, ChunkMap, ChunkOffset, Compression, DeviceOffset, Extent,
};

use super::world::*;
use crate::*;

#[test]
fn a_fault_fetches_what_covers_it_in_one_request_and_nothing_more() {
    let mut world = World::new(1, 100, Settings::default());
    world.fault(0, 0, 10..14, 1);
    let [fetch] = &world.fetches(0)[..] else {
        panic!("one fetch")
    };
    assert_eq!(
        (fetch.extents.clone(), fetch.range.clone()),
        (10..14, 10_000..14_000)
    );
    world.succeed(1, fetch, &[]);
    assert_eq!(world.readies(), [ok(1)]);
    world.fault(2, 0, 11..13, 2);
    assert_eq!(world.readies(), [ok(2)]);
    assert_eq!(world.fetches(2), []);
}

#[test]
fn faults_join_a_fetch_under_way_and_go_on_as_soon_as_they_can() {
    let mut world = World::new(1, 100, Settings::default());
    world.fault(0, 0, 10..14, 1);
    let first = world.fetches(0);
    world.fault(0, 0, 12..16, 2);
    let second = world.fetches(0);
    assert_eq!(second[0].extents, 14..16);
    world.succeed(1, &second[0], &[]);
    assert_eq!(world.readies(), []);
    world.fault(1, 0, 10..11, 3);
    // Part of the first is there before the rest.
    world.write(0, 10..12, FeedId(0));
    world.planner.filled(first[0].id, 10..12);
    assert_eq!(world.readies(), [ok(3)]);
    world.succeed(1, &first[0], &[]);
    assert_eq!(world.readies(), [ok(1), ok(2)]);
}

#[test]
fn a_corrupt_extent_fails_its_readers_and_not_its_neighbours() {
    let mut world = World::new(1, 100, Settings::default());
    world.fault(0, 0, 10..11, 1);
    world.fault(0, 0, 11..12, 2);
    let mut now_ms = 0;
    for attempt in 0..3 {
        let fetch = world.fetches(now_ms).remove(0);
        world.succeed(now_ms, &fetch, &[(10, Failure::Corrupt)]);
        let ready = world.readies();
        match attempt {
            0 => assert_eq!(ready, [ok(2)]),
            1 => assert_eq!(ready, []),
            _ => assert_eq!(ready, [failed(1, Failure::Corrupt)]),
        }
        now_ms += 10_000;
    }
    // Once the blob is repaired, the next reader gets it.
    world.fault(now_ms, 0, 10..11, 3);
    let fetch = world.fetches(now_ms).remove(0);
    world.succeed(now_ms, &fetch, &[]);
    assert_eq!(world.readies(), [ok(3)]);
}

#[test]
fn a_source_that_is_down_is_retried_until_the_deadline_and_not_in_a_hurry() {
    let settings = Settings::default();
    let mut world = World::new(1, 10, settings);
    world.fault(0, 0, 0..1, 1);
    let (mut now_ms, mut attempts) = (0, 0);
    let answer = loop {
        for fetch in world.fetches(now_ms) {
            attempts += 1;
            world.planner.fetched(now_ms, fetch.id, Err(DOWN));
        }
        if let Some(ready) = world.planner.next_ready() {
            break ready;
        }
        now_ms = world.planner.next_timeout().unwrap();
        world.planner.timeout(now_ms);
    };
    assert_eq!((answer, now_ms), (failed(1, DOWN), settings.deadline_ms));
    assert!((10..40).contains(&attempts), "{attempts} attempts");
    // Who comes next is not made to wait: a reader raises many faults before it sees the first error.
    world.fault(now_ms, 0, 1..2, 2);
    assert_eq!(world.readies(), [failed(2, DOWN)]);
    // It heals without anybody's help.
    now_ms += settings.backoff_max_ms;
    world.planner.timeout(now_ms);
    world.fault(now_ms, 0, 0..1, 3);
    let fetch = world.fetches(now_ms).remove(0);
    world.succeed(now_ms, &fetch, &[]);
    assert_eq!(world.readies(), [ok(3)]);
}

#[test]
fn a_full_disk_is_told_at_once() {
    let mut world = World::new(1, 10, Settings::default());
    world.fault(0, 0, 0..2, 1);
    let fetch = world.fetches(0).remove(0);
    world.succeed(0, &fetch, &[(1, Failure::NoSpace)]);
    assert_eq!(world.readies(), [failed(1, Failure::NoSpace)]);
}

#[test]
fn slow_sources_do_not_delay_another_however_many_they_are() {
    let settings = Settings::default();
    let mut world = World::with(8, settings, |_| {
        map(1000, 40_000, |index| (0, index.into()))
    });
    for token in 0..700 {
        world.fault(
            0,
            u32::try_from(token % 7).unwrap(),
            token..token + 1,
            token,
        );
    }
    let stuck = world.fetches(0);
    assert_eq!(stuck.len(), settings.fetches_max);
    world.fault(0, 7, 0..1, 1000);
    assert_eq!(world.fetches(0)[0].feed, FeedId(7));
}

#[test]
fn images_get_their_turns() {
    let settings = Settings {
        fetches_max: 1,
        fetches_per_source_max: 1,
        ..Settings::default()
    };
    let mut world = World::with(3, settings, |_| {
        map(1000, 40_000, |index| (0, index.into()))
    });
    // The first has a hundred times as much to do.
    for token in 0..100 {
        world.fault(0, 0, token * 10..token * 10 + 1, token);
    }
    world.fault(0, 1, 0..1, 200);
    world.fault(0, 2, 0..1, 300);
    let mut order = Vec::new();
    for _ in 0..4 {
        let fetches = world.fetches(0);
        for fetch in &fetches {
            order.push(fetch.feed.0);
            world.succeed(0, fetch, &[]);
        }
    }
    assert!(
        order[..4].contains(&1) && order[..4].contains(&2),
        "{order:?}"
    );
}

#[test]
fn demand_comes_before_prefetch_and_that_before_background() {
    let settings = Settings {
        fetches_max: 2,
        fetches_per_source_max: 2,
        gap_bytes_max: 0,
        prefetch_gap_bytes_max: 0,
        ..Settings::default()
    };
    let mut world = World::new(1, 100, settings);
    world
        .planner
        .prefetch(FeedId(0), 50..51, Priority::Background);
    world
        .planner
        .prefetch(FeedId(0), 70..71, Priority::Prefetch);
    world.fault(0, 0, 90..91, 1);
    let mut order = Vec::new();
    while let Some(fetch) = world.planner.next_fetch(0) {
        order.push((fetch.extents.start, fetch.priority));
        world.succeed(0, &fetch, &[]);
    }
    let expect = [
        (90, Priority::Demand),
        (70, Priority::Prefetch),
        (50, Priority::Background),
    ];
    assert_eq!(order, expect);
}

#[test]
fn prefetches_leave_room_for_who_waits() {
    let settings = Settings::default();
    let far_apart = |index: u32| (0, u64::from(index));
    let mut world = World::with(1, settings, |_| map(1000, 600_000, far_apart));
    world
        .planner
        .prefetch(FeedId(0), (0..1000).step_by(3), Priority::Background);
    let background = world.fetches(0);
    world
        .planner
        .prefetch(FeedId(0), (1..1000).step_by(3), Priority::Prefetch);
    let prefetches = world.fetches(0);
    world.fault(0, 0, 500..501, 1);
    let demand = world.fetches(0);
    assert!(!background.is_empty() && background.len() < settings.fetches_per_source_max / 2);
    assert!(background.len() + prefetches.len() < settings.fetches_per_source_max);
    assert_eq!((demand.len(), demand[0].priority), (1, Priority::Demand));
}

#[test]
fn what_is_prefetched_comes_in_few_requests() {
    let mut world = World::with(1, Settings::default(), |_| {
        map(1000, 10_000, |index| (0, index.into()))
    });
    // In the order of a start, not in that of the blob, and with gaps.
    let mut wanted: Vec<u32> = (0..100).map(|index| index * 37 % 100 * 3).collect();
    wanted.push(900);
    world
        .planner
        .prefetch(FeedId(0), wanted.clone(), Priority::Prefetch);
    let mut got = BTreeSet::new();
    let mut requests = 0;
    loop {
        let fetches = world.fetches(0);
        if fetches.is_empty() {
            break;
        }
        for fetch in fetches {
            requests += 1;
            got.extend(fetch.extents.clone());
            assert!(fetch.range.end - fetch.range.start <= 1 << 20);
            world.succeed(0, &fetch, &[]);
        }
    }
    assert!(wanted.iter().all(|extent| got.contains(extent)));
    assert!(requests <= 6, "{requests} requests");
}

#[test]
fn a_sequential_reader_raises_few_faults_and_keeps_the_link_busy() {
    let settings = Settings::default();
    let count = 4000;
    let mut world = World::with(1, settings, |_| {
        map(count, 10_000, |index| (0, index.into()))
    });
    let (mut faults, mut busy, mut rounds) = (0, 0, 0);
    let mut under_way: Vec<(u64, Fetch)> = Vec::new();
    let mut now_ms = 0;
    for block in 0..u64::from(count) {
        if world
            .disk
            .is_present(DeviceId(0), block * BLOCK..(block + 1) * BLOCK)
        {
            world
                .planner
                .touched(DeviceId(0), &(block * BLOCK..(block + 1) * BLOCK));
        } else {
            faults += 1;
            world.fault(now_ms, 0, block..block + 1, block);
        }
        loop {
            let started = world.fetches(now_ms);
            under_way.extend(started.into_iter().map(|fetch| (now_ms + 50, fetch)));
            let readies = world.readies();
            if readies.contains(&ok(block)) || world.planner.outlook().faults_waiting == 0 {
                break;
            }
            rounds += 1;
            busy += usize::from(under_way.len() >= 2);
            now_ms += 10;
            let (done, rest): (Vec<_>, Vec<_>) =
                under_way.into_iter().partition(|(due, _)| *due <= now_ms);
            under_way = rest;
            for (_, fetch) in done {
                world.succeed(now_ms, &fetch, &[]);
            }
        }
    }
    // One a file until it is known for what it is; then the reader waits for what is on its way.
    assert!(faults < 60, "{faults} faults");
    assert!(
        busy * 2 > rounds,
        "{busy} of {rounds} rounds with two fetches under way"
    );
}

#[test]
fn a_random_reader_is_not_fetched_ahead_of() {
    let mut world = World::with(1, Settings::default(), |_| {
        map(1000, 10_000, |index| (0, index.into()))
    });
    for block in [500, 700, 600, 900, 800, 550, 750, 650, 950, 850, 525, 725] {
        world.fault(0, 0, block..block + 1, block);
        let fetch = world.fetches(0).remove(0);
        assert_eq!(fetch.extents.len(), 1);
        world.succeed(0, &fetch, &[]);
        assert_eq!(world.fetches(0), []);
    }
}

#[test]
fn who_reads_most_of_a_region_gets_the_rest_whatever_the_order() {
    let mut world = World::with(1, Settings::default(), |_| {
        map(1000, 10_000, |index| (0, index.into()))
    });
    // The first region of 1 MiB has 105 extents.
    let mut prefetched = 0;
    for step in 0..60_u64 {
        let block = step * 47 % 105;
        if world
            .disk
            .is_present(DeviceId(0), block * BLOCK..(block + 1) * BLOCK)
        {
            continue;
        }
        world.fault(0, 0, block..block + 1, step);
        for fetch in world.fetches(0) {
            prefetched += usize::from(fetch.priority == Priority::Prefetch);
            world.succeed(0, &fetch, &[]);
        }
    }
    assert!(prefetched > 0 && world.disk.is_present(DeviceId(0), 0..105 * BLOCK));
    assert!(!world.disk.is_present(DeviceId(0), 106 * BLOCK..107 * BLOCK));
}

#[test]
fn a_reader_of_one_large_file_gets_no_more_than_the_file() {
    let mut world = World::with(1, Settings::default(), |_| {
        let mut chunk_map = ChunkMap::default();
        let digest = Digest::new(Algorithm::Sha256, [7; 32]);
        chunk_map.push_blob(Blob {
            digest,
            stored_bytes: 100_000,
            device_bytes: 0,
        });
        for index in 0..100 {
            let extent = chunk_map.push_extent(Extent {
                blob: BlobId(0),
                offset: BlobOffset(index * 1000),
                stored_bytes: 1000,
                decoded_bytes: 4096,
                compression: Compression::Zstd,
            });
            // The file is the first 61 chunks; the others are small files.
            let bytes = if index < 60 { 4096 } else { 100 };
            chunk_map.push_chunk(Chunk {
                digest,
                extent: extent.unwrap(),
                offset: ChunkOffset(0),
                bytes,
                place: DeviceOffset(0),
            });
        }
        // In a region of its own, so that reading most of it says nothing.
        let place = |chunk: draught_tree::ChunkId| Some((0, u64::from(chunk.0) * BLOCK));
        Arc::new(FeedMap::new(&chunk_map, BlobId(0), place).unwrap())
    });
    for block in 0..50 {
        world.fault(0, 0, block..block + 1, block);
        for fetch in world.fetches(0) {
            assert_eq!(fetch.extents.len(), 1, "{fetch:?}");
            world.succeed(0, &fetch, &[]);
        }
    }
}

#[test]
fn a_removed_feed_fails_its_readers_and_a_late_report_changes_nothing() {
    let mut world = World::new(1, 10, Settings::default());
    world.fault(0, 0, 0..1, 1);
    let fetch = world.fetches(0).remove(0);
    world.planner.remove_feed(0, FeedId(0));
    assert_eq!(world.readies(), [failed(1, Failure::Device)]);
    world.planner.fetched(0, fetch.id, Ok(vec![]));
    assert_eq!(world.readies(), []);
    assert_eq!(world.planner.outlook(), Outlook::default());
    world.fault(0, 0, 0..1, 2);
    assert_eq!(world.readies(), [failed(2, Failure::Device)]);
}

#[test]
fn who_is_cancelled_gets_no_answer_and_is_not_fetched_for() {
    let mut world = World::new(1, 10, Settings::default());
    world.fault(0, 0, 0..1, 1);
    world.planner.cancel(1);
    world
        .planner
        .prefetch(FeedId(0), 3..5, Priority::Background);
    world.planner.cancel_prefetch(ImageId(0));
    assert_eq!(world.fetches(0), []);
    world.planner.timeout(1_000_000);
    assert_eq!(world.readies(), []);
    assert_eq!(world.planner.outlook(), Outlook::default());
}

#[test]
fn ten_thousand_faults_on_one_extent_are_one_fetch() {
    let mut world = World::new(1, 10, Settings::default());
    for token in 0..10_000 {
        world.fault(0, 0, 3..4, token);
    }
    let fetches = world.fetches(0);
    assert_eq!(fetches.len(), 1);
    world.succeed(0, &fetches[0], &[]);
    assert_eq!(world.readies().len(), 10_000);
}

#[test]
fn ten_thousand_faults_on_fifty_images_are_served_within_the_limits() {
    let settings = Settings::default();
    let mut world = World::new(50, 400, settings);
    for token in 0..10_000 {
        let (device, block) = (u32::try_from(token % 50).unwrap(), token / 50 * 2);
        world.fault(0, device, block..block + 1, token);
    }
    let mut answers = 0;
    while answers < 10_000 {
        let fetches = world.fetches(0);
        // Each image may have one, whatever the others have.
        assert!(!fetches.is_empty() && fetches.len() <= settings.fetches_max.max(50));
        for fetch in fetches {
            world.succeed(0, &fetch, &[]);
        }
        answers += world.readies().len();
    }
    assert_eq!(world.planner.outlook(), Outlook::default());
}

#[test]
fn what_a_disk_lost_is_fetched_again() {
    let mut world = World::new(1, 100, Settings::default());
    world.fault(0, 0, 0..4, 1);
    let fetch = world.fetches(0).remove(0);
    world.succeed(0, &fetch, &[]);
    assert_eq!(world.readies(), [ok(1)]);
    // Blocks 2 and 3 turn out not to be on the disk.
    world.disk.0.borrow_mut().retain(|(_, block)| *block < 2);
    world.fault(1, 0, 0..2, 2);
    assert_eq!((world.readies(), world.fetches(1)), (vec![ok(2)], vec![]));
    world.fault(1, 0, 0..4, 3);
    let again = world.fetches(1);
    assert_eq!((again.len(), again[0].extents.clone()), (1, 2..4));
    world.succeed(1, &again[0], &[]);
    assert_eq!(world.readies(), [ok(3)]);
}

#[test]
fn maps_that_lie_are_refused() {
    type Bend = fn(&mut ChunkMap);
    let bends: [(&str, Bend); 6] = [
        ("outside of the extent", |map| map.chunks[1].bytes = 5000),
        ("empty", |map| map.chunks[1].bytes = 0),
        ("larger than can be decoded", |map| {
            map.extents[1].decoded_bytes = u32::MAX;
        }),
        ("larger than can be fetched", |map| {
            map.blobs[0].stored_bytes = 1 << 40;
            map.extents[1].stored_bytes = u32::MAX;
        }),
        ("outside of the blob", |map| {
            map.extents[1].offset = BlobOffset(1 << 50);
        }),
        ("of no extent", |map| {
            map.chunks[1].extent = draught_tree::ExtentId(9);
        }),
    ];
    for (name, bend) in bends {
        let mut chunk_map = ChunkMap::default();
        let digest = Digest::new(Algorithm::Sha256, [7; 32]);
        chunk_map.push_blob(Blob {
            digest,
            stored_bytes: 2000,
            device_bytes: 0,
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
                place: DeviceOffset(0),
            });
        }
        let place = |chunk: draught_tree::ChunkId| Some((0, u64::from(chunk.0) * BLOCK));
        assert!(FeedMap::new(&chunk_map, BlobId(0), place).is_ok());
        assert!(FeedMap::new(&chunk_map, BlobId(0), |_| Some((0, 5000))).is_err());
        bend(&mut chunk_map);
        let bent = FeedMap::new(&chunk_map, BlobId(0), place);
        assert!(bent.is_err(), "{name} was taken");
    }
}

/// Serves each of a hundred scattered misses of a blob after so long; how many bytes were fetched, in how
/// many requests.
fn scattered(took_ms: u64) -> (u64, usize) {
    let mut world = World::new(1, 20_000, Settings::default());
    let (mut now, mut bytes, mut requests) = (0, 0, 0);
    for miss in 0..100_u32 {
        let extent = miss * 7919 % 20_000;
        world.fault(now, 0, extent.into()..u64::from(extent) + 1, miss.into());
        let mut fetches = world.fetches(now);
        now += took_ms;
        while !fetches.is_empty() {
            for fetch in fetches {
                bytes += fetch.range.end - fetch.range.start;
                requests += 1;
                world.succeed(now, &fetch, &[]);
            }
            fetches = world.fetches(now);
        }
        world.readies();
    }
    (bytes, requests)
}

#[test]
fn what_lies_around_a_miss_is_fetched_along_from_a_far_source_within_limits() {
    let (near_bytes, near_requests) = scattered(2);
    assert_eq!((near_bytes, near_requests), (100 * 1000, 100));
    let (far_bytes, _) = scattered(60);
    // What is free, and four times what was missed; no more, though the blob has 20 MB.
    assert!((2_000_000..5_500_000).contains(&far_bytes), "{far_bytes}");
}

#[test]
fn a_far_source_that_has_all_it_may_leaves_a_near_one_what_it_needs() {
    let settings = Settings::default();
    // Extents of 600 kB, none near the next.
    let mut world = World::with(2, settings, |_| {
        map(2000, 600_000, |index| (0, u64::from(index) * 2))
    });
    world.planner.expect_latency(SourceId(0), 200);
    for fault in 0..200 {
        world.fault(0, 0, fault * 20..fault * 20 + 1, fault);
    }
    let far = world.fetches(0);
    let bytes: u64 = far.iter().map(|it| it.range.end - it.range.start).sum();
    assert!(far.len() > settings.fetches_per_source_max, "{}", far.len());
    assert!(bytes < settings.bytes_under_way_max / 2 + settings.fetch_bytes_max);
    for fault in 0..200 {
        world.fault(0, 1, fault * 20..fault * 20 + 1, 1000 + fault);
    }
    let near = world.fetches(0);
    assert_eq!(near.len(), settings.fetches_per_source_max);
    assert!(near.iter().all(|fetch| fetch.feed == FeedId(1)));
}

#[test]
fn a_long_queue_of_what_came_from_elsewhere_is_passed_at_once() {
    let mut world = World::new(1, 300_000, Settings::default());
    let all = 0..300_000;
    world
        .planner
        .prefetch(FeedId(0), all.clone(), Priority::Background);
    world.write(0, all, FeedId(0));
    assert_eq!(world.fetches(0), []);
    assert_eq!(world.planner.outlook().extents_queued, [0; 3]);
}
