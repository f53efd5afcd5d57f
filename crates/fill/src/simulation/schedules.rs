//! Generated schedules. A failing one is printed with its seed, and kept in `proptest-regressions`.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::world::*;
use crate::*;

/// Blocks of each device.
const BLOCKS: u64 = 40;
const DEVICES: u32 = 3;

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    Fault {
        device: u32,
        start: u64,
        blocks: u64,
    },
    Prefetch {
        feed: usize,
        start: u32,
        extents: u32,
        background: bool,
    },
    /// Part of a fetch is there.
    Partly {
        which: usize,
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
    Cancel {
        token: u64,
    },
    Remove {
        feed: usize,
    },
    /// A disk loses some blocks of a device.
    Lose {
        device: u32,
        start: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..DEVICES, 0..BLOCKS - 8, 1..8u64)
            .prop_map(|(device, start, blocks)| Step::Fault { device, start, blocks }),
        1 => (0..6usize, 0..30u32, 1..20u32, any::<bool>())
            .prop_map(|(feed, start, extents, background)| Step::Prefetch { feed, start, extents, background }),
        2 => (0..16usize, 1..4u32).prop_map(|(which, extents)| Step::Partly { which, extents }),
        8 => (
            0..16usize,
            proptest::collection::vec((0..40u32, 0..5u8), 0..3),
            proptest::option::weighted(0.2, 0..5u8),
        )
            .prop_map(|(which, failures, whole)| Step::Report { which, failures, whole }),
        3 => (0..5000u64).prop_map(|ms| Step::Wait { ms }),
        1 => (0..60u64).prop_map(|token| Step::Cancel { token }),
        1 => (0..6usize).prop_map(|feed| Step::Remove { feed }),
        1 => (0..DEVICES, 0..BLOCKS).prop_map(|(device, start)| Step::Lose { device, start }),
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

/// Where the extents of a feed belong: device and block.
type Places = Vec<(u16, u64)>;

/// Feeds whose places are anywhere, some the same as those of others; the image of each.
fn feeds() -> impl Strategy<Value = Vec<(Places, u32)>> {
    let place = (0..u16::try_from(DEVICES).unwrap(), 0..BLOCKS);
    let places = proptest::collection::vec(place, 1..40);
    proptest::collection::vec((places, 0..4u32), 1..6)
}

/// What must hold whatever happens, checked from outside.
struct Model {
    world: World,
    places: Vec<Places>,
    removed: BTreeSet<usize>,
    open: BTreeMap<u64, (u32, Range<u64>)>,
    under_way: Vec<Fetch>,
}

impl Model {
    fn new(feeds: Vec<(Places, u32)>) -> Self {
        let mut world = World::with(0, Settings::default(), |_| unreachable!());
        let devices: Vec<u32> = (0..DEVICES).collect();
        let mut all = Vec::new();
        for (places, image) in feeds {
            let count = u32::try_from(places.len()).unwrap();
            world.add(
                map(count, 1000, |index| places[index as usize]),
                &devices,
                image,
            );
            all.push(places);
        }
        Self {
            world,
            places: all,
            removed: BTreeSet::new(),
            open: BTreeMap::new(),
            under_way: Vec::new(),
        }
    }

    fn write(&self, fetch: &Fetch, extent: u32) {
        let (device, block) = self.places[fetch.feed.0 as usize][extent as usize];
        self.world
            .disk
            .0
            .borrow_mut()
            .insert((u32::from(device), block));
    }

    /// Whether all of a range that some feed could bring is there.
    fn is_served(&self, device: u32, blocks: &Range<u64>) -> bool {
        let disk = self.world.disk.0.borrow();
        let feeds = self.places.iter().enumerate();
        let feeds = feeds.filter(|(feed, _)| !self.removed.contains(feed));
        feeds.flat_map(|(_, places)| places).all(|(at, block)| {
            u32::from(*at) != device || !blocks.contains(block) || disk.contains(&(device, *block))
        })
    }

    fn drain(&mut self, now_ms: u64) {
        loop {
            while let Some(fetch) = self.world.planner.next_fetch(now_ms) {
                for extent in fetch.extents.clone() {
                    let twice = self
                        .under_way
                        .iter()
                        .any(|other| other.feed == fetch.feed && other.extents.contains(&extent));
                    let (device, block) = self.places[fetch.feed.0 as usize][extent as usize];
                    let there = self
                        .world
                        .disk
                        .0
                        .borrow()
                        .contains(&(u32::from(device), block));
                    assert!(!twice || there, "extent {extent} fetched twice at once");
                }
                self.under_way.push(fetch);
            }
            let settings = Settings::default();
            assert!(self.under_way.len() <= settings.fetches_max + self.places.len());
            let Some(ready) = self.world.planner.next_ready() else {
                return;
            };
            let (device, blocks) = self.open.remove(&ready.token).expect("one answer each");
            if ready.result.is_ok() {
                assert!(
                    self.is_served(device, &blocks),
                    "answered before all was there"
                );
            }
        }
    }

    fn report(&mut self, now_ms: u64, which: usize, failures: &[(u32, u8)], whole: Option<u8>) {
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
                let failed = failed.map(|(extent, kind)| (*extent, failure(*kind)));
                Ok(failed.collect::<Vec<_>>())
            }
        };
        if let Ok(failed) = &result {
            for extent in fetch.extents.clone() {
                if failed.iter().all(|(other, _)| *other != extent) {
                    self.write(&fetch, extent);
                }
            }
        }
        self.world.planner.fetched(now_ms, fetch.id, result);
    }

    fn run(&mut self, step: Step, now_ms: &mut u64, token: &mut u64) {
        match step {
            Step::Fault {
                device,
                start,
                blocks,
            } => {
                self.open.insert(*token, (device, start..start + blocks));
                self.world
                    .fault(*now_ms, device, start..start + blocks, *token);
                *token += 1;
            }
            Step::Prefetch {
                feed,
                start,
                extents,
                background,
            } => {
                let feed = feed % self.places.len();
                let count = u32::try_from(self.places[feed].len()).unwrap();
                let extents = start.min(count)..(start + extents).min(count);
                let priority = if background {
                    Priority::Background
                } else {
                    Priority::Prefetch
                };
                let feed = FeedId(u32::try_from(feed).unwrap());
                self.world.planner.prefetch(feed, extents, priority);
            }
            Step::Partly { which, extents } => {
                if let Some(fetch) = self.under_way.get(which).cloned() {
                    let end = fetch.extents.end.min(fetch.extents.start + extents);
                    for extent in fetch.extents.start..end {
                        self.write(&fetch, extent);
                    }
                    self.world
                        .planner
                        .filled(fetch.id, fetch.extents.start..end);
                }
            }
            Step::Report {
                which,
                failures,
                whole,
            } => self.report(*now_ms, which, &failures, whole),
            Step::Wait { ms } => {
                *now_ms += ms;
                self.world.planner.timeout(*now_ms);
            }
            Step::Cancel { token } => {
                self.open.remove(&token);
                self.world.planner.cancel(token);
            }
            Step::Remove { feed } => {
                if feed < self.places.len() {
                    self.removed.insert(feed);
                    let feed = FeedId(u32::try_from(feed).unwrap());
                    self.world.planner.remove_feed(*now_ms, feed);
                }
            }
            Step::Lose { device, start } => {
                let lost = start..start + 4;
                let mut disk = self.world.disk.0.borrow_mut();
                disk.retain(|(at, block)| *at != device || !lost.contains(block));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn every_fault_gets_one_true_answer(
        feeds in feeds(),
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut model = Model::new(feeds);
        let (mut now_ms, mut token) = (0, 0);
        for step in steps {
            // A disk that loses what somebody was just told of makes that untrue.
            let loses = matches!(step, Step::Lose { .. });
            if !loses || model.under_way.is_empty() && model.open.is_empty() {
                model.run(step, &mut now_ms, &mut token);
            }
            model.drain(now_ms);
        }
        // From here on every fetch succeeds: everybody gets an answer, without waiting for deadlines
        // for longer than the longest back-off.
        let end_ms = now_ms + Settings::default().backoff_max_ms;
        while !model.open.is_empty() {
            if model.under_way.is_empty() {
                now_ms = model.world.planner.next_timeout().expect("somebody waits, so something is due");
                prop_assert!(now_ms <= end_ms, "still waiting at {now_ms}");
                model.world.planner.timeout(now_ms);
            } else {
                model.report(now_ms, 0, &[], None);
            }
            model.drain(now_ms);
        }
        // And nothing is left over.
        while !model.under_way.is_empty() {
            model.report(now_ms, 0, &[], None);
            model.drain(now_ms);
            if model.under_way.is_empty()
                && let Some(due_ms) = model.world.planner.next_timeout()
            {
                now_ms = due_ms;
                model.world.planner.timeout(now_ms);
                model.drain(now_ms);
            }
        }
        prop_assert_eq!(model.world.planner.outlook().faults_waiting, 0);
    }
}
