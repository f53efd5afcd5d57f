//! The planner.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Range;

use crate::feed_queue::{FeedQueue, State, lane};
use crate::lanes::Lanes;
use crate::settings::Settings;
use crate::sources::Source;
use crate::{
    DeviceId, Failure, Fault, Feed, FeedId, Fetch, FetchId, ImageId, Outlook, Presence, Priority,
    Ready, SourceId,
};

/// A fault that waits.
#[derive(Debug)]
struct Waiting {
    device: DeviceId,
    range: Range<u64>,
    /// Extents that it still waits for.
    extents: BTreeSet<(FeedId, u32)>,
    deadline_ms: u64,
    /// Why the last attempt at one of them failed.
    failure: Option<Failure>,
}

#[derive(Debug)]
struct UnderWay {
    feed: FeedId,
    source: SourceId,
    extents: Range<u32>,
    bytes: u64,
    since_ms: u64,
}

/// See the crate. Memory: one byte an extent, and what is wanted or under way.
#[derive(Debug)]
pub struct Planner<P> {
    settings: Settings,
    presence: P,
    feeds: BTreeMap<FeedId, FeedQueue>,
    /// Which feeds have chunks on a device, each with the device's index there; the oldest first.
    on_device: HashMap<DeviceId, Vec<(FeedId, u16)>>,
    sources: HashMap<SourceId, Source>,
    lanes: Lanes,
    waiting: HashMap<u64, Waiting>,
    deadlines: BTreeSet<(u64, u64)>,
    under_way: BTreeMap<FetchId, UnderWay>,
    bytes_under_way: u64,
    ready: VecDeque<Ready>,
    next_fetch: u64,
}

/// Where what a fault lacks is to come from.
#[derive(Debug, Default)]
struct Assignment {
    extents: BTreeSet<(FeedId, u32)>,
    /// Whether something of it has a source that rests after a failure.
    blocked: Option<SourceId>,
}

impl<P: Presence> Planner<P> {
    /// A planner without feeds.
    #[must_use]
    pub fn new(settings: Settings, presence: P) -> Self {
        Self {
            settings,
            presence,
            feeds: BTreeMap::new(),
            on_device: HashMap::new(),
            sources: HashMap::new(),
            lanes: Lanes::default(),
            waiting: HashMap::new(),
            deadlines: BTreeSet::new(),
            under_way: BTreeMap::new(),
            bytes_under_way: 0,
            ready: VecDeque::new(),
            next_fetch: 0,
        }
    }

    /// Plans for a feed from now on.
    pub fn add_feed(&mut self, id: FeedId, feed: Feed) {
        self.remove_feed(0, id);
        let queue = FeedQueue::new(feed);
        let used: BTreeSet<u16> = queue
            .map
            .chunks()
            .iter()
            .map(|chunk| chunk.device)
            .collect();
        for index in used {
            if let Some(device) = queue.devices.get(usize::from(index)) {
                self.on_device.entry(*device).or_default().push((id, index));
            }
        }
        self.sources.entry(queue.source).or_default().feeds += 1;
        self.feeds.insert(id, queue);
    }

    /// Plans for a feed no longer. Faults that wait for it go to other feeds that have what they lack; those
    /// for which there is none fail with [`Failure::Device`]. Fetches under way may still be reported and
    /// change nothing. Call [`Self::next_fetch`] and [`Self::next_ready`] afterwards.
    pub fn remove_feed(&mut self, now_ms: u64, id: FeedId) {
        let Some(queue) = self.feeds.remove(&id) else {
            return;
        };
        for device in queue.devices.iter() {
            if let Some(feeds) = self.on_device.get_mut(device) {
                feeds.retain(|(feed, _)| *feed != id);
                if feeds.is_empty() {
                    self.on_device.remove(device);
                }
            }
        }
        self.lanes.remove(queue.image, id);
        if let Some(source) = self.sources.get_mut(&queue.source) {
            source.feeds -= 1;
        }
        self.drop_source_if_unused(queue.source);
        let tokens: BTreeSet<u64> = queue.waiters.values().flatten().copied().collect();
        for token in tokens {
            let Some(waiting) = self.waiting.get_mut(&token) else {
                continue;
            };
            waiting.extents.retain(|(feed, _)| *feed != id);
            let (device, range) = (waiting.device, waiting.range.clone());
            let more = self.assign(now_ms, device, &range, &|_, _, _| true);
            // What it waits for already is found again: only what is new is added.
            if self.is_served(device, &range, &more) {
                self.wait_for(token, more);
            } else {
                self.finish(token, Err(Failure::Device));
            }
        }
    }

    fn drop_source_if_unused(&mut self, id: SourceId) {
        if self
            .sources
            .get(&id)
            .is_some_and(|source| source.feeds == 0 && source.under_way == 0)
        {
            self.sources.remove(&id);
        }
    }

    /// Whether an assignment brings all that a range lacks of what was known to belong there: nothing is
    /// missing, or something is to come.
    fn is_served(&self, device: DeviceId, range: &Range<u64>, more: &Assignment) -> bool {
        !more.extents.is_empty() || self.presence.is_present(device, range.clone())
    }

    /// Finds where the missing chunks of a range are to come from: from feeds that fetch them already, then
    /// from those whose source is well, then from the youngest. `may` says of a feed and extent whether it
    /// may be used.
    fn assign(
        &self,
        now_ms: u64,
        device: DeviceId,
        range: &Range<u64>,
        may: &dyn Fn(FeedId, &FeedQueue, u32) -> bool,
    ) -> Assignment {
        let mut assignment = Assignment::default();
        let Some(feeds) = self.on_device.get(&device) else {
            return assignment;
        };
        // (rank, extents with the places that they bring) of each feed that has any.
        let mut found = Vec::new();
        for (age, (id, index)) in feeds.iter().rev().enumerate() {
            let Some(queue) = self.feeds.get(id) else {
                continue;
            };
            let covering = queue.map.covering(*index, range);
            let missing = covering.filter(|(extent, chunk)| {
                may(*id, queue, *extent) && !self.presence.is_present(device, chunk.blocks())
            });
            let missing: Vec<(u32, u64)> = missing
                .map(|(extent, chunk)| (extent, chunk.place))
                .collect();
            if missing.is_empty() {
                continue;
            }
            let is_known = |(extent, _): &(u32, u64)| queue.state(*extent) != Some(State::Idle);
            let source = self.sources.get(&queue.source);
            let is_blocked = source.is_some_and(|source| source.is_blocked(now_ms));
            let rank = (is_blocked, !missing.iter().any(is_known), age);
            found.push((rank, *id, queue.source, missing));
        }
        found.sort_unstable_by_key(|(rank, ..)| *rank);
        let mut brought = HashSet::new();
        for ((is_blocked, ..), id, source, missing) in found {
            for (extent, place) in missing {
                if brought.insert(place) {
                    assignment.extents.insert((id, extent));
                    if is_blocked {
                        assignment.blocked = Some(source);
                    }
                }
            }
        }
        assignment
    }

    /// Lets a fault wait for what was assigned.
    fn wait_for(&mut self, token: u64, assignment: Assignment) {
        let Some(waiting) = self.waiting.get_mut(&token) else {
            return;
        };
        let is_new = |need: &(FeedId, u32)| !waiting.extents.contains(need);
        let new: Vec<(FeedId, u32)> = assignment.extents.into_iter().filter(is_new).collect();
        waiting.extents.extend(&new);
        if waiting.extents.is_empty() {
            self.finish(token, Ok(()));
            return;
        }
        for (feed, extent) in new {
            self.want(feed, extent, Priority::Demand);
            if let Some(queue) = self.feeds.get_mut(&feed) {
                queue.waiters.entry(extent).or_default().push(token);
            }
        }
    }

    fn want(&mut self, feed: FeedId, extent: u32, priority: Priority) {
        let Some(queue) = self.feeds.get_mut(&feed) else {
            return;
        };
        queue.want(extent, priority);
        let is_queued = queue.state(extent) == Some(State::Queued(priority));
        let lane = lane(priority);
        if let Some(listed) = queue.is_listed.get_mut(lane).filter(|_| is_queued)
            && !std::mem::replace(listed, true)
        {
            self.lanes.push(lane, queue.image, feed);
        }
    }

    /// A read of a device. Call [`Self::next_fetch`] and [`Self::next_ready`] afterwards until both are
    /// empty.
    pub fn fault(&mut self, now_ms: u64, fault: Fault) {
        let Fault {
            device,
            range,
            token,
        } = fault;
        let assignment = self.assign(now_ms, device, &range, &|_, _, _| true);
        if assignment.extents.is_empty() {
            // Nothing is missing, or only what nobody can have come for.
            let is_known = self.on_device.contains_key(&device)
                || self.presence.is_present(device, range.clone());
            let result = if is_known {
                Ok(())
            } else {
                Err(Failure::Device)
            };
            self.ready.push_back(Ready { token, result });
            return;
        }
        let given_up = |source: &SourceId| self.sources.get(source)?.given_up;
        let sources = assignment
            .extents
            .iter()
            .filter_map(|(feed, _)| self.feeds.get(feed));
        let failure = sources
            .map(|queue| queue.source)
            .find_map(|source| given_up(&source));
        let patience_ms = match (failure, assignment.blocked) {
            (Some(_), Some(blocked)) if given_up(&blocked).is_some() => {
                let result = Err(given_up(&blocked).unwrap_or(Failure::Refused));
                self.ready.push_back(Ready { token, result });
                return;
            }
            (Some(_), _) => self.settings.probe_ms.min(self.settings.deadline_ms),
            (None, _) => self.settings.deadline_ms,
        };
        let deadline_ms = now_ms.saturating_add(patience_ms);
        self.deadlines.insert((deadline_ms, token));
        let extents: Vec<(FeedId, u32)> = assignment.extents.iter().copied().collect();
        let waiting = Waiting {
            device,
            range,
            extents: BTreeSet::new(),
            deadline_ms,
            failure: None,
        };
        self.waiting.insert(token, waiting);
        self.wait_for(token, assignment);
        self.read_ahead(&extents, true);
    }

    /// A read of a device that lacks nothing: whoever reads on is fetched ahead for. Whether there is more to
    /// fetch because of it: call [`Self::next_fetch`] then.
    pub fn touched(&mut self, device: DeviceId, range: &Range<u64>) -> bool {
        let Some((feed, index)) = self.on_device.get(&device).and_then(|feeds| feeds.last()) else {
            return false;
        };
        let Some(queue) = self.feeds.get(feed) else {
            return false;
        };
        let covering = queue.map.covering(*index, range);
        let extents: Vec<(FeedId, u32)> = covering.map(|(extent, _)| (*feed, extent)).collect();
        self.read_ahead(&extents, false)
    }

    /// Notes what is read, to know who reads on and who reads everywhere.
    fn read_ahead(&mut self, extents: &[(FeedId, u32)], missed: bool) -> bool {
        let (mut wanted, mut missed_first) = (Vec::new(), Vec::new());
        let mut at = 0;
        while let Some((feed, first)) = extents.get(at).copied() {
            let mut end = first + 1;
            at += 1;
            while let Some((_, extent)) = extents
                .get(at)
                .filter(|(other, extent)| *other == feed && *extent <= end)
            {
                end = end.max(extent + 1);
                at += 1;
            }
            let Some(queue) = self.feeds.get_mut(&feed) else {
                continue;
            };
            let FeedQueue {
                map,
                readahead,
                waiters,
                ..
            } = queue;
            let is_first = |extent: &u32| waiters.get(extent).is_some_and(|all| all.len() == 1);
            let ahead = readahead.note(map, &(first..end), &self.settings);
            wanted.extend(ahead.map(|extents| (feed, extents)));
            for extent in (first..end).filter(|extent| missed && is_first(extent)) {
                missed_first.push((feed, extent));
                let region = readahead.missed(map, extent, &self.settings);
                wanted.extend(region.map(|extents| (feed, extents)));
            }
        }
        let is_more = !wanted.is_empty();
        for (feed, extents) in wanted {
            self.prefetch(feed, extents, Priority::Prefetch);
        }
        for (feed, extent) in missed_first {
            self.want_around(feed, extent);
        }
        is_more
    }

    /// A source of feeds that were added takes about so long to answer, as somebody else saw it.
    pub fn expect_latency(&mut self, source: SourceId, latency_ms: u64) {
        if let Some(source) = self.sources.get_mut(&source) {
            source.pace.expect(latency_ms);
        }
    }

    /// Bytes per millisecond that a source was seen to deliver to one fetch, beyond the time that asking takes.
    #[must_use]
    pub fn rate(&self, source: SourceId) -> Option<u64> {
        self.sources.get(&source)?.pace.rate()
    }

    /// Wants what lies around an extent that was missed, if its source is so far away that this costs nothing.
    fn want_around(&mut self, feed: FeedId, extent: u32) {
        let Some(queue) = self.feeds.get_mut(&feed) else {
            return;
        };
        let source = self.sources.get(&queue.source);
        let window = source.map_or(0, |source| source.pace.window(&self.settings));
        if window > 0 {
            let around = queue.around(extent, window, &self.settings, &self.presence);
            self.prefetch(feed, around, Priority::Prefetch);
        }
    }

    /// Wants extents of a feed (by index in its map) that nobody waits for yet, in that order. Call
    /// [`Self::next_fetch`] afterwards.
    pub fn prefetch(
        &mut self,
        feed: FeedId,
        extents: impl IntoIterator<Item = u32>,
        priority: Priority,
    ) {
        for extent in extents {
            self.want(feed, extent, priority);
        }
    }

    /// Forgets what is queued for an image and nobody waits for.
    pub fn cancel_prefetch(&mut self, image: ImageId) {
        for queue in self.feeds.values_mut().filter(|queue| queue.image == image) {
            queue.clear_prefetches();
        }
    }

    /// Whoever waits with that token does not any more: there will be no [`Ready`] for it.
    pub fn cancel(&mut self, token: u64) {
        if let Some(waiting) = self.waiting.remove(&token) {
            self.forget(token, &waiting);
        }
    }

    fn forget(&mut self, token: u64, waiting: &Waiting) {
        self.deadlines.remove(&(waiting.deadline_ms, token));
        for (feed, extent) in &waiting.extents {
            if let Some(queue) = self.feeds.get_mut(feed) {
                queue.leave(*extent, token);
            }
        }
    }

    fn finish(&mut self, token: u64, result: Result<(), Failure>) {
        if let Some(waiting) = self.waiting.remove(&token) {
            self.forget(token, &waiting);
            self.ready.push_back(Ready { token, result });
        }
    }

    /// The next fetch to start, if any may be started now. Call again until there is none, after every
    /// other call that changes something, and then [`Self::next_ready`].
    pub fn next_fetch(&mut self, now_ms: u64) -> Option<Fetch> {
        for priority in [Priority::Demand, Priority::Prefetch, Priority::Background] {
            let mut turns = self.lanes.turns(lane(priority));
            while let Some((image, feed)) = turns.next(&mut self.lanes) {
                let fetch = self.fetch_of(feed, priority, now_ms);
                let has_more = self
                    .feeds
                    .get_mut(&feed)
                    .is_some_and(|queue| queue.front(priority).is_some());
                if !has_more {
                    self.lanes.take(lane(priority), image, feed);
                    let queue = self.feeds.get_mut(&feed);
                    if let Some(listed) = queue.and_then(|it| it.is_listed.get_mut(lane(priority)))
                    {
                        *listed = false;
                    }
                }
                if fetch.is_some() {
                    return fetch;
                }
            }
        }
        None
    }

    fn fetch_of(&mut self, id: FeedId, priority: Priority, now_ms: u64) -> Option<Fetch> {
        let total = (self.under_way.len(), self.bytes_under_way);
        let mut first = self.feeds.get_mut(&id)?.front(priority)?;
        while self.feeds.get(&id)?.is_present(first, &self.presence) {
            // It came from elsewhere in the meantime.
            self.settle_filled(id, first);
            first = self.feeds.get_mut(&id)?.front(priority)?;
        }
        let queue = self.feeds.get_mut(&id)?;
        let source = self.sources.get_mut(&queue.source)?;
        if !source.has_room(priority, total, &self.settings) || source.is_blocked(now_ms) {
            return None;
        }
        let extents = queue.take(first, priority, &self.settings, &self.presence)?;
        let range = queue.stored(&extents)?;
        let bytes = range.end.saturating_sub(range.start);
        source.under_way += 1;
        source.bytes_under_way += bytes;
        source.is_tried = true;
        self.bytes_under_way += bytes;
        let fetch = FetchId(self.next_fetch);
        self.next_fetch += 1;
        self.under_way.insert(
            fetch,
            UnderWay {
                feed: id,
                source: queue.source,
                extents: extents.clone(),
                bytes,
                since_ms: now_ms,
            },
        );
        Some(Fetch {
            id: fetch,
            feed: id,
            extents,
            range,
            priority,
        })
    }

    /// Part of a fetch is on the devices already: whoever waits for no more than that goes on. Call
    /// [`Self::next_ready`] afterwards.
    pub fn filled(&mut self, id: FetchId, extents: Range<u32>) {
        let Some(under_way) = self.under_way.get(&id) else {
            return;
        };
        let (feed, all) = (under_way.feed, under_way.extents.clone());
        for extent in extents.start.max(all.start)..extents.end.min(all.end) {
            self.settle_filled(feed, extent);
        }
    }

    /// A fetch has ended. `Ok`: the extents listed failed for these reasons, all others are present on
    /// the devices. `Err`: none is but what [`Self::filled`] told. Call [`Self::next_fetch`] and
    /// [`Self::next_ready`] afterwards.
    pub fn fetched(
        &mut self,
        now_ms: u64,
        id: FetchId,
        result: Result<Vec<(u32, Failure)>, Failure>,
    ) {
        let Some(UnderWay {
            feed,
            source: source_id,
            extents,
            bytes,
            since_ms,
        }) = self.under_way.remove(&id)
        else {
            return;
        };
        self.bytes_under_way = self.bytes_under_way.saturating_sub(bytes);
        let failures: BTreeMap<u32, Failure> = match result {
            Ok(failed) => failed.into_iter().collect(),
            Err(failure) => extents.clone().map(|extent| (extent, failure)).collect(),
        };
        if let Some(source) = self.sources.get_mut(&source_id) {
            source.under_way = source.under_way.saturating_sub(1);
            source.bytes_under_way = source.bytes_under_way.saturating_sub(bytes);
            if failures.is_empty() {
                source.pace.note(bytes, now_ms.saturating_sub(since_ms));
            }
            source.learn(now_ms, failures.values().copied(), &self.settings);
        }
        self.drop_source_if_unused(source_id);
        for extent in extents {
            let queue = self.feeds.get(&feed);
            if queue.is_none_or(|queue| queue.state(extent) != Some(State::UnderWay)) {
                // Told before, present before, or nobody's any more.
                continue;
            }
            match failures.get(&extent) {
                None => self.settle_filled(feed, extent),
                Some(failure) => self.settle_failed(now_ms, feed, extent, *failure),
            }
        }
    }

    fn settle_filled(&mut self, feed: FeedId, extent: u32) {
        let Some(queue) = self.feeds.get_mut(&feed) else {
            return;
        };
        for token in queue.filled(extent) {
            let Some(waiting) = self.waiting.get_mut(&token) else {
                continue;
            };
            waiting.extents.remove(&(feed, extent));
            if waiting.extents.is_empty() {
                self.finish(token, Ok(()));
            }
        }
    }

    fn settle_failed(&mut self, now_ms: u64, feed: FeedId, extent: u32, failure: Failure) {
        let Some(queue) = self.feeds.get_mut(&feed) else {
            return;
        };
        queue.set(extent, State::Idle);
        let tokens = queue.waiters.get(&extent).cloned().unwrap_or_default();
        if tokens.is_empty() {
            // What nobody waits for is asked for again when somebody does.
            return;
        }
        let final_here = match failure {
            Failure::NoSpace | Failure::Device => true,
            Failure::Unavailable { .. } => false,
            Failure::Refused | Failure::Corrupt => {
                let attempts = queue.attempts.entry(extent).or_default();
                *attempts = attempts.saturating_add(1);
                *attempts >= self.settings.attempts_max
            }
        };
        let source = queue.source;
        let given_up = self.sources.get(&source).and_then(|source| source.given_up);
        let is_final = final_here
            || given_up.is_some()
                && matches!(failure, Failure::Unavailable { .. } | Failure::Refused);
        let mut stays = Vec::new();
        for token in tokens {
            if let Some(waiting) = self.waiting.get_mut(&token) {
                waiting.failure = Some(failure);
            }
            let is_disk = matches!(failure, Failure::NoSpace | Failure::Device);
            if is_disk || !self.go_elsewhere(now_ms, token, feed, extent) {
                stays.push(token);
            }
        }
        if stays.is_empty() {
            return;
        }
        if !is_final {
            self.want(feed, extent, Priority::Demand);
            return;
        }
        if let Failure::Unavailable { .. } | Failure::Refused = failure
            && let Some(source) = self.sources.get_mut(&source)
        {
            source.given_up = Some(failure);
        }
        for token in stays {
            self.forget_attempts(token);
            self.finish(token, Err(failure));
        }
        if let Some(queue) = self.feeds.get_mut(&feed) {
            queue.attempts.remove(&extent);
        }
    }

    /// A fault is given up: whoever comes next begins anew, with all feeds that have what it lacked.
    fn forget_attempts(&mut self, token: u64) {
        let Some(waiting) = self.waiting.get(&token) else {
            return;
        };
        let feeds = self.on_device.get(&waiting.device);
        for (feed, index) in feeds.into_iter().flatten() {
            if let Some(queue) = self.feeds.get_mut(feed)
                && !queue.attempts.is_empty()
            {
                let covering = queue.map.covering(*index, &waiting.range);
                let extents: Vec<u32> = covering.map(|(extent, _)| extent).collect();
                for extent in extents {
                    queue.attempts.remove(&extent);
                }
            }
        }
    }

    /// Lets a fault wait for another feed instead of one that failed, if there is one with a source that is
    /// well for all that this extent was to bring.
    fn go_elsewhere(&mut self, now_ms: u64, token: u64, from: FeedId, extent: u32) -> bool {
        let Some(waiting) = self.waiting.get(&token) else {
            return true;
        };
        let device = waiting.device;
        let Some(queue) = self.feeds.get(&from) else {
            return false;
        };
        let chunks = queue
            .map
            .extent(extent)
            .map(|extent| queue.map.chunks_of(extent));
        let missing = chunks.into_iter().flatten().filter(|chunk| {
            let blocks = chunk.blocks();
            queue.devices.get(usize::from(chunk.device)) == Some(&device)
                && blocks.start < waiting.range.end
                && waiting.range.start < blocks.end
                && !self.presence.is_present(device, blocks)
        });
        let missing: Vec<Range<u64>> = missing.map(|chunk| chunk.blocks()).collect();
        let may = |id: FeedId, other: &FeedQueue, extent: u32| {
            let source = self.sources.get(&other.source);
            let attempts = other.attempts.get(&extent).copied().unwrap_or(0);
            id != from
                && source.is_some_and(|source| !source.is_blocked(now_ms))
                && attempts < self.settings.attempts_max
        };
        let mut all = Assignment::default();
        for blocks in &missing {
            let one = self.assign(now_ms, device, blocks, &may);
            if one.extents.is_empty() {
                return false;
            }
            all.extents.extend(one.extents);
        }
        if let Some(waiting) = self.waiting.get_mut(&token) {
            waiting.extents.remove(&(from, extent));
        }
        if let Some(queue) = self.feeds.get_mut(&from) {
            queue.leave(extent, token);
        }
        self.wait_for(token, all);
        true
    }

    /// The next fault that is answered. Call again until there is none.
    pub fn next_ready(&mut self) -> Option<Ready> {
        self.ready.pop_front()
    }

    /// When [`Self::timeout`] is to be called, if nothing else happens before: the earliest deadline, or
    /// the end of the earliest wait after a failure.
    #[must_use]
    pub fn next_timeout(&self) -> Option<u64> {
        let deadline = self.deadlines.first().map(|(deadline_ms, _)| *deadline_ms);
        let blocked = self.sources.values().map(|source| source.blocked_until_ms);
        let blocked = blocked.filter(|until_ms| *until_ms > 0).min();
        deadline.into_iter().chain(blocked).min()
    }

    /// Time has come: faults whose deadline is over fail. Call [`Self::next_fetch`] and
    /// [`Self::next_ready`] afterwards.
    pub fn timeout(&mut self, now_ms: u64) {
        for source in self.sources.values_mut() {
            if source.blocked_until_ms <= now_ms {
                source.blocked_until_ms = 0;
            }
        }
        while let Some((deadline_ms, token)) = self.deadlines.first().copied() {
            if deadline_ms > now_ms {
                return;
            }
            let Some(waiting) = self.waiting.get(&token) else {
                self.deadlines.remove(&(deadline_ms, token));
                continue;
            };
            // It may have come by another way than the one that was waited for.
            let missing = waiting.extents.iter().filter(|(feed, extent)| {
                let queue = self.feeds.get(feed);
                queue.is_some_and(|queue| !queue.is_present(*extent, &self.presence))
            });
            let sources: BTreeSet<u32> = missing
                .filter_map(|(feed, _)| self.feeds.get(feed).map(|queue| queue.source.0))
                .collect();
            if sources.is_empty() {
                self.finish(token, Ok(()));
                continue;
            }
            let failure = waiting.failure.unwrap_or(Failure::Unavailable {
                retry_after_ms: None,
            });
            for source in sources {
                if let Some(source) = self.sources.get_mut(&SourceId(source)) {
                    source.give_up(now_ms, failure, &self.settings);
                }
            }
            self.finish(token, Err(failure));
        }
    }

    /// What there is to do, in numbers.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        let mut extents_queued = [0; 3];
        for queue in self.feeds.values() {
            for (sum, count) in extents_queued.iter_mut().zip(queue.queued) {
                *sum += count;
            }
        }
        let resting = self
            .sources
            .values()
            .filter(|source| source.blocked_until_ms > 0);
        Outlook {
            faults_waiting: self.waiting.len(),
            fetches_under_way: self.under_way.len(),
            sources_backing_off: resting.count(),
            extents_queued,
        }
    }
}
