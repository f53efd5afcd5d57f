//! Feeds that bring the same chunks.

use super::world::*;
use crate::*;

/// Two images whose feeds bring the same blocks of one device: the second in the opposite order.
fn shared(settings: Settings) -> World {
    let mut world = World::with(0, settings, |_| unreachable!());
    world.add(map(100, 1000, |index| (0, index.into())), &[0], 0);
    world.add(map(100, 1000, |index| (0, u64::from(99 - index))), &[0], 1);
    world
}

fn feed_of(fetches: &[Fetch]) -> Vec<u32> {
    fetches.iter().map(|fetch| fetch.feed.0).collect()
}

/// Writes what a fetch brings to the shared device and reports it.
fn succeed(world: &mut World, now_ms: u64, fetch: &Fetch) {
    world.write(0, fetch.extents.clone(), fetch.feed);
    world.planner.fetched(now_ms, fetch.id, Ok(vec![]));
}

#[test]
fn what_two_images_share_is_fetched_once_for_the_younger() {
    let mut world = shared(Settings::default());
    world.fault(0, 0, 10..12, 1);
    let fetches = world.fetches(0);
    assert_eq!(feed_of(&fetches), [1]);
    assert_eq!(fetches[0].extents, 88..90);
    // Whoever comes meanwhile waits for the same.
    world.fault(0, 0, 10..12, 2);
    assert_eq!(world.fetches(0), []);
    succeed(&mut world, 1, &fetches[0]);
    assert_eq!(world.readies(), [ok(1), ok(2)]);
}

#[test]
fn when_a_source_fails_the_other_takes_over_at_once() {
    for failure in [DOWN, Failure::Refused, Failure::Corrupt] {
        let mut world = shared(Settings::default());
        world.fault(0, 0, 10..12, 1);
        let fetches = world.fetches(0);
        match failure {
            Failure::Corrupt => {
                let failures = fetches[0].extents.clone().map(|extent| (extent, failure));
                world
                    .planner
                    .fetched(5, fetches[0].id, Ok(failures.collect()));
            }
            _ => world.planner.fetched(5, fetches[0].id, Err(failure)),
        }
        let fetches = world.fetches(5);
        assert_eq!(feed_of(&fetches), [0], "{failure:?}");
        succeed(&mut world, 6, &fetches[0]);
        assert_eq!(world.readies(), [ok(1)]);
        // What comes next does not even try the one that failed, while that rests.
        if failure != Failure::Corrupt {
            world.fault(7, 0, 30..31, 2);
            assert_eq!(feed_of(&world.fetches(7)), [0], "{failure:?}");
        }
    }
}

#[test]
fn when_both_fail_it_is_tried_until_the_deadline_and_heals_with_either() {
    let settings = Settings::default();
    let mut world = shared(settings);
    world.fault(0, 0, 10..11, 1);
    let mut now_ms = 0;
    let mut asked = [0; 2];
    while now_ms < 20_000 {
        for fetch in world.fetches(now_ms) {
            asked[fetch.feed.0 as usize] += 1;
            world.planner.fetched(now_ms, fetch.id, Err(DOWN));
        }
        assert_eq!(world.readies(), []);
        now_ms = world.planner.next_timeout().unwrap();
        world.planner.timeout(now_ms);
    }
    assert!(
        asked.iter().all(|asked| (3..40).contains(asked)),
        "{asked:?}"
    );
    // One of them is back.
    loop {
        let fetches = world.fetches(now_ms);
        for fetch in &fetches {
            if fetch.feed == FeedId(0) {
                succeed(&mut world, now_ms, fetch);
            } else {
                world.planner.fetched(now_ms, fetch.id, Err(DOWN));
            }
        }
        if world.planner.next_ready() == Some(ok(1)) {
            break;
        }
        assert!(now_ms < settings.deadline_ms);
        now_ms = world.planner.next_timeout().unwrap();
        world.planner.timeout(now_ms);
    }
}

#[test]
fn when_both_are_corrupt_the_reader_is_told_soon() {
    let mut world = shared(Settings::default());
    world.fault(0, 0, 10..11, 1);
    let mut attempts = 0;
    let answer = loop {
        for fetch in world.fetches(0) {
            attempts += 1;
            let extent = fetch.extents.start;
            world
                .planner
                .fetched(0, fetch.id, Ok(vec![(extent, Failure::Corrupt)]));
        }
        if let Some(ready) = world.planner.next_ready() {
            break ready;
        }
        assert!(attempts < 20);
    };
    assert_eq!(answer, failed(1, Failure::Corrupt));
    // Repaired, it is read.
    world.fault(1, 0, 10..11, 2);
    let fetch = world.fetches(1).remove(0);
    succeed(&mut world, 1, &fetch);
    assert_eq!(world.readies(), [ok(2)]);
}

#[test]
fn who_waits_for_an_image_that_goes_waits_for_the_one_that_stays() {
    let mut world = shared(Settings::default());
    world.fault(0, 0, 10..12, 1);
    let late = world.fetches(0).remove(0);
    world.planner.remove_feed(1, FeedId(1));
    let fetches = world.fetches(1);
    assert_eq!(feed_of(&fetches), [0]);
    assert_eq!(world.readies(), []);
    world.planner.fetched(2, late.id, Err(DOWN));
    succeed(&mut world, 3, &fetches[0]);
    assert_eq!(world.readies(), [ok(1)]);
    world.planner.remove_feed(4, FeedId(0));
    assert_eq!(world.planner.outlook(), Outlook::default());
}

#[test]
fn what_another_feed_brought_meanwhile_is_not_fetched() {
    let settings = Settings {
        fetches_max: 1,
        fetches_per_source_max: 1,
        ..Settings::default()
    };
    let mut world = shared(settings);
    world
        .planner
        .prefetch(FeedId(0), 50..60, Priority::Prefetch);
    world.fault(0, 0, 50..60, 1);
    let fetch = world.fetches(0).remove(0);
    assert_eq!(fetch.priority, Priority::Demand);
    succeed(&mut world, 1, &fetch);
    assert_eq!((world.readies(), world.fetches(1)), (vec![ok(1)], vec![]));
}

#[test]
fn an_extent_may_bring_chunks_of_several_devices() {
    let mut world = World::with(0, Settings::default(), |_| unreachable!());
    let map = map(10, 1000, |index| {
        (u16::try_from(index % 2).unwrap(), u64::from(index / 2))
    });
    world.add(map, &[7, 8], 0);
    world.fault(0, 8, 1..3, 1);
    let fetches = world.fetches(0);
    // Extents 3 and 5, and 4 between them, which belongs on the other device.
    assert_eq!(fetches[0].extents, 3..6);
    for block in [1, 2] {
        world.disk.0.borrow_mut().insert((8, block));
    }
    world.disk.0.borrow_mut().insert((7, 2));
    world.planner.fetched(1, fetches[0].id, Ok(vec![]));
    assert_eq!(world.readies(), [ok(1)]);
    world.fault(1, 7, 2..3, 2);
    assert_eq!(world.readies(), [ok(2)]);
}
