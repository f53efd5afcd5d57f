//! What one device has to do.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::device_map::DeviceMap;
use crate::settings::Settings;
use crate::{Failure, Priority};

/// Where an extent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Not on the device, and nobody wants it.
    Missing,
    /// Wanted, in the queue of that priority.
    Queued(Priority),
    /// Being fetched.
    UnderWay,
    /// On the device.
    Present,
}

/// A run of faults, each where the one before ended.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    /// Extents in it so far.
    extents: u32,
    /// The extent that would continue it.
    next: u32,
    /// The extent up to which was fetched along for it: reads up to here raise no faults, and one that
    /// begins here continues it.
    reached: u32,
    /// Files that ended in it.
    files: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct DeviceQueue {
    pub(crate) map: Arc<DeviceMap>,
    states: Vec<State>,
    queues: [VecDeque<u32>; 3],
    /// Who waits for an extent.
    pub(crate) waiters: BTreeMap<u32, Vec<u64>>,
    /// Attempts at extents that failed in a way that time alone does not heal.
    attempts: BTreeMap<u32, u8>,
    pub(crate) under_way: usize,
    /// No fetch before this time.
    pub(crate) blocked_until_ms: u64,
    /// Failures of the source in a row.
    pub(crate) failures: u32,
    /// Why a fault was given up last, if the source has not delivered since: who comes now is not made
    /// to wait as long as the first was.
    pub(crate) given_up: Option<Failure>,
    run: Run,
    /// Bytes of the largest chunk: a smaller one is the last of its file.
    chunk_bytes_max: u32,
}

fn lane(priority: Priority) -> usize {
    match priority {
        Priority::Demand => 0,
        Priority::Prefetch => 1,
        Priority::Background => 2,
    }
}

impl DeviceQueue {
    pub(crate) fn new(map: Arc<DeviceMap>, present: impl Fn(Range<u64>) -> bool) -> Self {
        let state = |extent| {
            let all = map
                .chunks_of(extent)
                .iter()
                .all(|chunk| present(chunk.blocks()));
            if all { State::Present } else { State::Missing }
        };
        let chunk_bytes_max = map
            .chunks()
            .iter()
            .map(|chunk| chunk.bytes)
            .max()
            .unwrap_or(0);
        let states = map.extents().iter().map(state).collect();
        Self {
            map,
            states,
            queues: Default::default(),
            waiters: BTreeMap::new(),
            attempts: BTreeMap::new(),
            under_way: 0,
            blocked_until_ms: 0,
            failures: 0,
            given_up: None,
            run: Run::default(),
            chunk_bytes_max,
        }
    }

    pub(crate) fn state(&self, extent: u32) -> Option<State> {
        self.states.get(usize::try_from(extent).ok()?).copied()
    }

    fn set(&mut self, extent: u32, state: State) {
        let slot = usize::try_from(extent)
            .ok()
            .and_then(|index| self.states.get_mut(index));
        if let Some(slot) = slot {
            *slot = state;
        }
    }

    /// Looks again which extents of a range are present: what was is no more if the disk lost it.
    pub(crate) fn recheck(&mut self, range: &Range<u64>, present: impl Fn(Range<u64>) -> bool) {
        let map = Arc::clone(&self.map);
        for index in map.covering(range) {
            let chunks = map.extent(index).map(|extent| map.chunks_of(extent));
            let mut chunks = chunks.into_iter().flatten();
            if self.state(index) == Some(State::Present) && !chunks.all(|c| present(c.blocks())) {
                self.set(index, State::Missing);
            }
        }
    }

    /// Wants an extent that is not present at least that urgently.
    pub(crate) fn want(&mut self, extent: u32, priority: Priority) {
        let queue = match self.state(extent) {
            Some(State::Missing) => true,
            Some(State::Queued(queued)) => priority < queued,
            _ => false,
        };
        if queue {
            self.set(extent, State::Queued(priority));
            if let Some(lane) = self.queues.get_mut(lane(priority)) {
                lane.push_back(extent);
            }
        }
    }

    /// Notes where faults are, to know a reader that goes through file after file.
    pub(crate) fn note_fault(&mut self, extents: &Range<u32>) {
        let Run {
            extents: seen,
            next,
            reached,
            files,
        } = self.run;
        let continues =
            extents.start.saturating_add(1) >= next && extents.start <= reached.max(next);
        self.run = if continues {
            let next_now = next.max(extents.end);
            Run {
                extents: seen.saturating_add(next_now - next),
                next: next_now,
                reached,
                files: files + self.files_ending_in(next..next_now),
            }
        } else {
            Run {
                extents: extents.end - extents.start,
                next: extents.end,
                reached: extents.end,
                files: self.files_ending_in(extents.clone()),
            }
        };
    }

    fn files_ending_in(&self, extents: Range<u32>) -> usize {
        extents
            .filter_map(|extent| self.map.extent(extent))
            .flat_map(|extent| self.map.chunks_of(extent))
            .filter(|chunk| chunk.bytes < self.chunk_bytes_max)
            .count()
    }

    /// The highest priority that something is queued with.
    pub(crate) fn most_urgent(&mut self) -> Option<Priority> {
        let mut priorities =
            [Priority::Demand, Priority::Prefetch, Priority::Background].into_iter();
        priorities.find(|priority| self.front(*priority).is_some())
    }

    /// The next extent of that priority; what was fetched or promoted since it was queued is passed.
    fn front(&mut self, priority: Priority) -> Option<u32> {
        loop {
            let extent = *self.queues.get(lane(priority))?.front()?;
            if self.state(extent) == Some(State::Queued(priority)) {
                return Some(extent);
            }
            self.queues.get_mut(lane(priority))?.pop_front();
        }
    }

    /// Takes the next extents to fetch together, and marks them as under way.
    pub(crate) fn take(&mut self, priority: Priority, settings: &Settings) -> Option<Range<u32>> {
        let first = self.front(priority)?;
        let mut end = first + 1;
        let mut stored = self.map.extent(first)?.stored();
        let ahead = self.ahead(settings);
        while let Some(extent) = self.map.extent(end) {
            let wanted = match self.state(end) {
                Some(State::Queued(_)) => true,
                Some(State::Missing) => end < ahead,
                _ => false,
            };
            let next = extent.stored();
            let gap = next.start.checked_sub(stored.end);
            let close = gap.is_some_and(|gap| gap <= settings.gap_bytes_max);
            let bytes = next.end.saturating_sub(stored.start);
            if !wanted || !close || bytes > settings.fetch_bytes_max {
                break;
            }
            stored.end = next.end;
            end += 1;
        }
        for extent in first..end {
            self.set(extent, State::UnderWay);
        }
        if end <= ahead {
            self.run.reached = self.run.reached.max(end);
        }
        self.under_way += 1;
        Some(first..end)
    }

    /// The extent before which a sequential reader's fetches may reach: as far ahead as it has come.
    fn ahead(&self, settings: &Settings) -> u32 {
        let Run {
            extents,
            next,
            files,
            ..
        } = self.run;
        if files >= settings.sequential_files_min {
            next.saturating_add(extents)
        } else {
            0
        }
    }

    /// The stored bytes of extents taken together.
    pub(crate) fn stored(&self, extents: &Range<u32>) -> Option<Range<u64>> {
        let first = self.map.extent(extents.start)?.stored();
        let last = self.map.extent(extents.end.checked_sub(1)?)?.stored();
        Some(first.start..last.end)
    }

    /// An extent is on the device. Gives who waited.
    pub(crate) fn filled(&mut self, extent: u32) -> Vec<u64> {
        self.set(extent, State::Present);
        self.attempts.remove(&extent);
        self.waiters.remove(&extent).unwrap_or_default()
    }

    /// An extent failed. Gives who waited, if it is given up; else it is queued again.
    pub(crate) fn failed(
        &mut self,
        extent: u32,
        failure: Failure,
        settings: &Settings,
    ) -> Option<Vec<u64>> {
        let attempts = self.attempts.entry(extent).or_default();
        let again = match failure {
            Failure::Unavailable { .. } => self.given_up.is_none(),
            Failure::Refused if self.given_up.is_some() => false,
            Failure::Refused | Failure::Corrupt => {
                *attempts = attempts.saturating_add(1);
                *attempts < settings.attempts_max
            }
            Failure::NoSpace | Failure::Device => false,
        };
        if *attempts == 0 || !again {
            self.attempts.remove(&extent);
        }
        self.set(extent, State::Missing);
        if !again {
            return Some(self.waiters.remove(&extent).unwrap_or_default());
        }
        // What nobody waits for is asked for again when somebody does.
        if self.waiters.contains_key(&extent) {
            self.want(extent, Priority::Demand);
        }
        None
    }

    /// Somebody does not wait for an extent any more.
    pub(crate) fn leave(&mut self, extent: u32, token: u64) {
        let Some(waiters) = self.waiters.get_mut(&extent) else {
            return;
        };
        waiters.retain(|waiter| *waiter != token);
        if waiters.is_empty() {
            self.waiters.remove(&extent);
            if let Some(State::Queued(Priority::Demand)) = self.state(extent) {
                self.set(extent, State::Missing);
            }
        }
    }
}
