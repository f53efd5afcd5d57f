//! What is wanted of one feed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::feed_map::FeedMap;
use crate::readahead::Readahead;
use crate::settings::Settings;
use crate::{DeviceId, Feed, ImageId, Presence, Priority, SourceId};

/// Stored bytes of a fetch that somebody waits for up to which it takes along what nobody waits for yet:
/// what a link of 100 MB/s delivers in 3 ms.
const ALONG_BYTES_MAX: u64 = 256 << 10;

/// Where an extent stands. Whether it is present is for the store to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nobody wants it.
    Idle,
    /// Wanted, in the queue of that priority.
    Queued(Priority),
    /// Being fetched.
    UnderWay,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct FeedQueue {
    pub(crate) map: Arc<FeedMap>,
    pub(crate) devices: Arc<[DeviceId]>,
    pub(crate) source: SourceId,
    pub(crate) image: ImageId,
    states: Vec<State>,
    queues: [VecDeque<u32>; 3],
    /// How many extents are queued with each priority.
    pub(crate) queued: [usize; 3],
    /// Whether the planner has this feed in the list of those with work of that priority.
    pub(crate) is_listed: [bool; 3],
    /// Who waits for an extent.
    pub(crate) waiters: BTreeMap<u32, Vec<u64>>,
    /// Attempts at extents that failed in a way that time alone does not heal.
    pub(crate) attempts: BTreeMap<u32, u8>,
    pub(crate) readahead: Readahead,
    /// Stored bytes that readers missed.
    missed_bytes: u64,
    /// Stored bytes that were wanted because they lie around those.
    around_bytes: u64,
}

/// What lies around misses that is wanted before it is known how much is read.
const AROUND_BYTES_FREE: u64 = 4 << 20;

/// The queue of a priority.
pub(crate) fn lane(priority: Priority) -> usize {
    match priority {
        Priority::Demand => 0,
        Priority::Prefetch => 1,
        Priority::Background => 2,
    }
}

impl FeedQueue {
    pub(crate) fn new(feed: Feed) -> Self {
        let Feed {
            map,
            devices,
            source,
            image,
        } = feed;
        Self {
            states: vec![State::Idle; map.extents().len()],
            readahead: Readahead::new(&map),
            map,
            devices,
            source,
            image,
            queues: Default::default(),
            queued: [0; 3],
            is_listed: [false; 3],
            waiters: BTreeMap::new(),
            attempts: BTreeMap::new(),
            missed_bytes: 0,
            around_bytes: 0,
        }
    }

    pub(crate) fn state(&self, extent: u32) -> Option<State> {
        self.states.get(usize::try_from(extent).ok()?).copied()
    }

    pub(crate) fn set(&mut self, extent: u32, state: State) {
        let slot = usize::try_from(extent)
            .ok()
            .and_then(|index| self.states.get_mut(index));
        let Some(slot) = slot else { return };
        let before = std::mem::replace(slot, state);
        if let State::Queued(priority) = before
            && let Some(count) = self.queued.get_mut(lane(priority))
        {
            *count = count.saturating_sub(1);
        }
        if let State::Queued(priority) = state
            && let Some(count) = self.queued.get_mut(lane(priority))
        {
            *count += 1;
        }
    }

    /// Whether all chunks of an extent are on their devices.
    pub(crate) fn is_present(&self, extent: u32, presence: &impl Presence) -> bool {
        let chunks = self
            .map
            .extent(extent)
            .map(|extent| self.map.chunks_of(extent));
        chunks.into_iter().flatten().all(|chunk| {
            let device = self.devices.get(usize::from(chunk.device));
            device.is_some_and(|device| presence.is_present(*device, chunk.blocks()))
        })
    }

    /// An extent was missed. Gives those around it that are missing too, up to `window` stored bytes of them:
    /// a quarter before it, for files are read forwards more often than not.
    pub(crate) fn around(
        &mut self,
        missed: u32,
        window: u64,
        settings: &Settings,
        presence: &impl Presence,
    ) -> Vec<u32> {
        let Some(stored) = self.map.extent(missed).map(|extent| extent.stored()) else {
            return Vec::new();
        };
        self.missed_bytes = self.missed_bytes.saturating_add(stored.end - stored.start);
        let asked = self.missed_bytes.saturating_mul(settings.around_factor_max);
        let room = asked
            .saturating_add(AROUND_BYTES_FREE)
            .saturating_sub(self.around_bytes);
        let window = window.min(room);
        if window == 0 {
            return Vec::new();
        }
        let (from, to) = (
            stored.start.saturating_sub(window / 4),
            stored.end.saturating_add(window / 4 * 3),
        );
        let extents = self.map.extents();
        let first = extents.partition_point(|extent| extent.blob_offset < from);
        let mut around = Vec::new();
        let last = u32::try_from(first).unwrap_or(u32::MAX);
        for (index, extent) in (last..).zip(extents.get(first..).unwrap_or_default()) {
            if extent.blob_offset >= to {
                break;
            }
            let is_idle = self.state(index) == Some(State::Idle);
            if is_idle && !self.is_present(index, presence) {
                self.around_bytes += u64::from(extent.stored_bytes);
                around.push(index);
            }
        }
        around
    }

    /// Wants an extent at least that urgently.
    pub(crate) fn want(&mut self, extent: u32, priority: Priority) {
        let queue = match self.state(extent) {
            Some(State::Idle) => true,
            Some(State::Queued(queued)) => priority < queued,
            _ => false,
        };
        if queue {
            self.set(extent, State::Queued(priority));
            if let Some(queue) = self.queues.get_mut(lane(priority)) {
                queue.push_back(extent);
            }
        }
    }

    /// The next extent of that priority; what was fetched or promoted since it was queued is passed.
    pub(crate) fn front(&mut self, priority: Priority) -> Option<u32> {
        loop {
            let extent = *self.queues.get(lane(priority))?.front()?;
            if self.state(extent) == Some(State::Queued(priority)) {
                return Some(extent);
            }
            self.queues.get_mut(lane(priority))?.pop_front();
        }
    }

    /// Forgets what nobody waits for.
    pub(crate) fn clear_prefetches(&mut self) {
        for priority in [Priority::Prefetch, Priority::Background] {
            let queue = self.queues.get_mut(lane(priority)).map(std::mem::take);
            for extent in queue.into_iter().flatten() {
                if self.state(extent) == Some(State::Queued(priority)) {
                    self.set(extent, State::Idle);
                }
            }
        }
    }

    /// Takes the next extents to fetch together, beginning with one that is queued, and marks them as under
    /// way. What is present in between is taken along where that is cheaper than a second request.
    pub(crate) fn take(
        &mut self,
        first: u32,
        priority: Priority,
        settings: &Settings,
        presence: &impl Presence,
    ) -> Option<Range<u32>> {
        let (bytes_max, gap_max) = match priority {
            Priority::Demand => (settings.fetch_bytes_max, settings.gap_bytes_max),
            Priority::Prefetch => (settings.fetch_bytes_max, settings.prefetch_gap_bytes_max),
            Priority::Background => (
                settings.background_fetch_bytes_max,
                settings.prefetch_gap_bytes_max,
            ),
        };
        let stored = self.map.extent(first)?.stored();
        let (mut taken, mut range) = (first..first + 1, stored);
        // Onwards, then backwards.
        let mut probe = first + 1;
        while let Some(next) = self.map.extent(probe).map(|extent| extent.stored()) {
            let gap = next.start.checked_sub(range.end);
            if gap.is_none_or(|gap| gap > gap_max) || next.end - range.start > bytes_max {
                break;
            }
            match self.state(probe) {
                // Who waits is not made to wait for much that nobody waits for.
                Some(State::Queued(other))
                    if other <= priority || next.end - range.start <= ALONG_BYTES_MAX =>
                {
                    range.end = next.end;
                    taken.end = probe + 1;
                }
                Some(State::Queued(_)) => break,
                Some(State::Idle) => {}
                _ => break,
            }
            probe += 1;
        }
        let mut probe = first;
        while let Some(before) = probe.checked_sub(1)
            && let Some(next) = self.map.extent(before).map(|extent| extent.stored())
        {
            let gap = range.start.checked_sub(next.end);
            if gap.is_none_or(|gap| gap > gap_max) || range.end - next.start > bytes_max {
                break;
            }
            match self.state(before) {
                Some(State::Queued(other)) if other <= priority => {
                    range.start = next.start;
                    taken.start = before;
                }
                Some(State::Queued(_)) => break,
                Some(State::Idle) => {}
                _ => break,
            }
            probe = before;
        }
        for extent in taken.clone() {
            // What comes along anyway is filled, too.
            if self.state(extent) != Some(State::Idle) || !self.is_present(extent, presence) {
                self.set(extent, State::UnderWay);
            }
        }
        Some(taken)
    }

    /// The stored bytes of extents taken together.
    pub(crate) fn stored(&self, extents: &Range<u32>) -> Option<Range<u64>> {
        let first = self.map.extent(extents.start)?.stored();
        let last = self.map.extent(extents.end.checked_sub(1)?)?.stored();
        Some(first.start..last.end)
    }

    /// An extent is on the devices. Gives who waited.
    pub(crate) fn filled(&mut self, extent: u32) -> Vec<u64> {
        self.set(extent, State::Idle);
        self.attempts.remove(&extent);
        self.waiters.remove(&extent).unwrap_or_default()
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
                self.set(extent, State::Idle);
            }
        }
    }
}
