//! The planner.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::device_map::DeviceMap;
use crate::queue::{DeviceQueue, State};
use crate::settings::Settings;
use crate::{DeviceId, Failure, Fault, Fetch, FetchId, Priority, Ready};

/// A fault that waits.
#[derive(Debug)]
struct Waiting {
    device: DeviceId,
    /// Extents that it still waits for.
    extents: BTreeSet<u32>,
    deadline_ms: u64,
    /// Why the last attempt at one of them failed.
    failure: Option<Failure>,
}

#[derive(Debug)]
struct UnderWay {
    device: DeviceId,
    extents: Range<u32>,
}

/// See the crate. Memory: one byte an extent, and what is wanted or under way.
#[derive(Debug)]
pub struct Planner {
    settings: Settings,
    devices: BTreeMap<DeviceId, DeviceQueue>,
    /// Whose turn it is among devices that have equally urgent work.
    turns: VecDeque<DeviceId>,
    waiting: HashMap<u64, Waiting>,
    deadlines: BTreeSet<(u64, u64)>,
    under_way: BTreeMap<FetchId, UnderWay>,
    ready: VecDeque<Ready>,
    next_fetch: u64,
}

impl Planner {
    /// A planner without devices.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            devices: BTreeMap::new(),
            turns: VecDeque::new(),
            waiting: HashMap::new(),
            deadlines: BTreeSet::new(),
            under_way: BTreeMap::new(),
            ready: VecDeque::new(),
            next_fetch: 0,
        }
    }

    /// Plans for a device from now on. `present` says of a range of its bytes whether it is there already.
    pub fn add_device(
        &mut self,
        id: DeviceId,
        map: Arc<DeviceMap>,
        present: impl Fn(Range<u64>) -> bool,
    ) {
        self.remove_device(id);
        self.devices.insert(id, DeviceQueue::new(map, present));
        self.turns.push_back(id);
    }

    /// Plans for a device no longer. Faults that wait for it fail with [`Failure::Device`]; fetches under
    /// way may still be reported and change nothing.
    pub fn remove_device(&mut self, id: DeviceId) {
        if self.devices.remove(&id).is_none() {
            return;
        }
        self.turns.retain(|turn| *turn != id);
        let waiting = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.device == id);
        let mut tokens: Vec<u64> = waiting.map(|(token, _)| *token).collect();
        tokens.sort_unstable();
        for token in tokens {
            self.finish(token, Err(Failure::Device));
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
        let Some(queue) = self.devices.get_mut(&device) else {
            self.ready.push_back(Ready {
                token,
                result: Err(Failure::Device),
            });
            return;
        };
        let covering = queue.map.covering(&range);
        if !covering.is_empty() {
            queue.note_fault(&covering);
        }
        let missing = |extent: &u32| queue.state(*extent) != Some(State::Present);
        let extents: BTreeSet<u32> = covering.filter(missing).collect();
        let patience_ms = match queue.given_up {
            _ if extents.is_empty() => {
                let result = Ok(());
                self.ready.push_back(Ready { token, result });
                return;
            }
            Some(failure) if queue.blocked_until_ms > now_ms => {
                let result = Err(failure);
                self.ready.push_back(Ready { token, result });
                return;
            }
            Some(_) => self.settings.probe_ms.min(self.settings.deadline_ms),
            None => self.settings.deadline_ms,
        };
        for extent in &extents {
            queue.want(*extent, Priority::Demand);
            queue.waiters.entry(*extent).or_default().push(token);
        }
        let deadline_ms = now_ms.saturating_add(patience_ms);
        self.deadlines.insert((deadline_ms, token));
        self.waiting.insert(
            token,
            Waiting {
                device,
                extents,
                deadline_ms,
                failure: None,
            },
        );
    }

    /// Looks again what of a range of a device is present, by `present` as for [`Self::add_device`]: a disk
    /// that failed may have lost what was filled. The next fault has it fetched again.
    pub fn recheck(
        &mut self,
        device: DeviceId,
        range: &Range<u64>,
        present: impl Fn(Range<u64>) -> bool,
    ) {
        if let Some(queue) = self.devices.get_mut(&device) {
            queue.recheck(range, present);
        }
    }

    /// Wants extents of a device (by index in its map) that nobody waits for yet.
    pub fn prefetch(&mut self, device: DeviceId, extents: Range<u32>, priority: Priority) {
        let Some(queue) = self.devices.get_mut(&device) else {
            return;
        };
        for extent in extents {
            queue.want(extent, priority);
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
        if let Some(queue) = self.devices.get_mut(&waiting.device) {
            for extent in &waiting.extents {
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
    /// other call that changes something.
    pub fn next_fetch(&mut self, now_ms: u64) -> Option<Fetch> {
        if self.under_way.len() >= self.settings.fetches_max {
            return None;
        }
        for priority in [Priority::Demand, Priority::Prefetch, Priority::Background] {
            for _ in 0..self.turns.len() {
                let id = self.turns.pop_front()?;
                self.turns.push_back(id);
                let fetch = self.fetch_of(id, priority, now_ms);
                if fetch.is_some() {
                    return fetch;
                }
            }
        }
        None
    }

    fn fetch_of(&mut self, id: DeviceId, priority: Priority, now_ms: u64) -> Option<Fetch> {
        let queue = self.devices.get_mut(&id)?;
        let full = queue.under_way >= self.settings.fetches_per_device_max;
        if full || queue.blocked_until_ms > now_ms || queue.most_urgent() != Some(priority) {
            return None;
        }
        let extents = queue.take(priority, &self.settings)?;
        let range = queue.stored(&extents)?;
        let fetch = FetchId(self.next_fetch);
        self.next_fetch += 1;
        self.under_way.insert(
            fetch,
            UnderWay {
                device: id,
                extents: extents.clone(),
            },
        );
        Some(Fetch {
            id: fetch,
            device: id,
            extents,
            range,
            priority,
        })
    }

    /// A fetch has ended. `Ok`: the extents listed failed for these reasons, all others are present on
    /// the device. `Err`: none is. Call [`Self::next_fetch`] and [`Self::next_ready`] afterwards.
    pub fn fetched(
        &mut self,
        now_ms: u64,
        id: FetchId,
        result: Result<Vec<(u32, Failure)>, Failure>,
    ) {
        let Some(UnderWay { device, extents }) = self.under_way.remove(&id) else {
            return;
        };
        let Some(queue) = self.devices.get_mut(&device) else {
            return;
        };
        queue.under_way = queue.under_way.saturating_sub(1);
        let failures: BTreeMap<u32, Failure> = match result {
            Ok(failed) => failed.into_iter().collect(),
            Err(failure) => extents.clone().map(|extent| (extent, failure)).collect(),
        };
        back_off(queue, now_ms, failures.values().copied(), &self.settings);
        for extent in extents {
            match failures.get(&extent) {
                None => self.settle_filled(device, extent),
                Some(failure) => self.settle_failed(device, extent, *failure),
            }
        }
    }

    fn settle_filled(&mut self, device: DeviceId, extent: u32) {
        let Some(queue) = self.devices.get_mut(&device) else {
            return;
        };
        for token in queue.filled(extent) {
            let Some(waiting) = self.waiting.get_mut(&token) else {
                continue;
            };
            waiting.extents.remove(&extent);
            if waiting.extents.is_empty() {
                self.finish(token, Ok(()));
            }
        }
    }

    fn settle_failed(&mut self, device: DeviceId, extent: u32, failure: Failure) {
        let Some(queue) = self.devices.get_mut(&device) else {
            return;
        };
        for token in queue.waiters.get(&extent).into_iter().flatten() {
            if let Some(waiting) = self.waiting.get_mut(token) {
                waiting.failure = Some(failure);
            }
        }
        let Some(waiters) = queue.failed(extent, failure, &self.settings) else {
            return;
        };
        if let Failure::Unavailable { .. } | Failure::Refused = failure {
            queue.given_up = Some(failure);
        }
        for token in waiters {
            self.finish(token, Err(failure));
        }
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
        let blocked = self.devices.values().map(|queue| queue.blocked_until_ms);
        let blocked = blocked.filter(|until_ms| *until_ms > 0).min();
        deadline.into_iter().chain(blocked).min()
    }

    /// Time has come: faults whose deadline is over fail. Call [`Self::next_fetch`] and
    /// [`Self::next_ready`] afterwards.
    pub fn timeout(&mut self, now_ms: u64) {
        for queue in self.devices.values_mut() {
            if queue.blocked_until_ms <= now_ms {
                queue.blocked_until_ms = 0;
            }
        }
        while let Some((deadline_ms, token)) = self.deadlines.first().copied() {
            if deadline_ms > now_ms {
                return;
            }
            let waiting = self.waiting.get(&token);
            let failure = waiting.and_then(|waiting| waiting.failure);
            let failure = failure.unwrap_or(Failure::Unavailable {
                retry_after_ms: None,
            });
            let device = waiting.map(|waiting| waiting.device);
            if let Some(queue) = device.and_then(|device| self.devices.get_mut(&device)) {
                let rest_ms = now_ms.saturating_add(self.settings.backoff_max_ms);
                queue.blocked_until_ms = queue.blocked_until_ms.max(rest_ms);
                queue.given_up = Some(failure);
            }
            self.finish(token, Err(failure));
        }
    }
}

/// A device whose source failed rests for a while; one that delivered does not.
fn back_off(
    queue: &mut DeviceQueue,
    now_ms: u64,
    failures: impl Iterator<Item = Failure>,
    settings: &Settings,
) {
    let mut asked_ms = None;
    let mut failed = false;
    for failure in failures {
        match failure {
            Failure::Unavailable { retry_after_ms } => {
                failed = true;
                asked_ms = asked_ms.max(retry_after_ms);
            }
            Failure::Refused => failed = true,
            // The source answers; what it answers is counted extent by extent.
            Failure::Corrupt | Failure::NoSpace | Failure::Device => {}
        }
    }
    if !failed {
        queue.failures = 0;
        queue.blocked_until_ms = 0;
        queue.given_up = None;
        return;
    }
    let doubled = settings
        .backoff_min_ms
        .saturating_mul(1 << queue.failures.min(16));
    queue.failures = queue.failures.saturating_add(1);
    let wait_ms = asked_ms
        .unwrap_or(0)
        .max(doubled)
        .min(settings.backoff_max_ms);
    queue.blocked_until_ms = now_ms.saturating_add(wait_ms);
}
