//! The index: fingerprints of digests, and the records that may hold those.
//!
//! A fingerprint says where to look and proves nothing: whoever asks reads the record and compares. What
//! is here is therefore never wrong, at most of no use. Fingerprints are made with a secret of this
//! process, for whoever makes images chooses digests.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};

use draught_digest::Digest;

use super::shard::{Entry, NOBODY, Shard};
use crate::device::{narrow, widen};
use crate::key::DeviceKey;

/// The bits of a fingerprint that choose its shard: with five million chunks a shard is small enough for
/// a processor's cache, and with none all of them take 24 KiB.
const SHARD_BITS: u32 = 10;

/// The places of one chunk that the index knows at most. More help nobody, and a table that says the same
/// digest a million times must not make a million look-ups slow.
const PLACES_MAX: usize = 16;

/// Entries of devices that are gone are swept out when they are more than a quarter of the others, and
/// more than these: a sweep takes as long as adding them did.
const DEAD_MIN: u64 = 65_536;

/// Which file of a device has a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Table,
    Twins,
}

/// The bit of a record's number that says it is one of the twins. Tables have at most 2^28 records: one for
/// each block of the largest device.
const TWIN: u32 = 1 << 31;

/// A record that may be about the digest that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate {
    pub(crate) device: u32,
    pub(crate) source: Source,
    pub(crate) number: u32,
    /// Which of those that were asked for.
    pub(crate) asked: usize,
}

/// What the index knows of the digests that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    /// By device, file and number.
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) keys: BTreeMap<u32, DeviceKey>,
}

/// All chunks of all devices.
#[derive(Debug)]
pub(crate) struct Index {
    shards: Vec<Shard>,
    /// The devices by their numbers in entries.
    devices: Vec<Option<DeviceKey>>,
    by_key: BTreeMap<DeviceKey, Known>,
    /// Numbers that no entry has.
    free: Vec<u32>,
    /// Numbers that entries may still have.
    gone: Vec<u32>,
    entries: u64,
    gone_entries: u64,
    hashing: Hashing,
    places_max: usize,
}

/// Makes hashes, of which fingerprints are parts.
#[derive(Debug, Clone)]
pub(crate) struct Hashing {
    secret: RandomState,
    /// What hashes may be: all ones, but for tests of what happens when many are the same.
    mask: u64,
}

impl Hashing {
    pub(crate) fn hash(&self, asked: (Digest, u32)) -> u64 {
        self.secret.hash_one(asked) & self.mask
    }
}

/// A device in the index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Added {
    key: DeviceKey,
    number: u32,
}

#[derive(Debug)]
struct Known {
    number: u32,
    chunks: u64,
    twins: u64,
}

impl Default for Index {
    fn default() -> Self {
        Self::new(u64::MAX, PLACES_MAX)
    }
}

impl Index {
    pub(super) fn new(mask: u64, places_max: usize) -> Self {
        Self {
            shards: (0..1 << SHARD_BITS).map(|_| Shard::default()).collect(),
            devices: Vec::new(),
            by_key: BTreeMap::new(),
            free: Vec::new(),
            gone: Vec::new(),
            entries: 0,
            gone_entries: 0,
            hashing: Hashing {
                secret: RandomState::new(),
                mask,
            },
            places_max,
        }
    }

    /// An index in which many digests have the same fingerprint.
    #[cfg(test)]
    pub(crate) fn with_collisions() -> Self {
        Self::new(0b11, usize::MAX)
    }

    pub(crate) fn has(&self, key: &DeviceKey) -> bool {
        self.by_key.contains_key(key)
    }

    pub(crate) fn devices(&self) -> u64 {
        widen(self.by_key.len())
    }

    pub(crate) fn chunks(&self) -> u64 {
        self.by_key.values().map(|known| known.chunks).sum()
    }

    pub(crate) fn twins(&self) -> u64 {
        self.by_key.values().map(|known| known.twins).sum()
    }

    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> u64 {
        let shards: usize = self.shards.iter().map(Shard::bytes).sum();
        let fixed = size_of_val::<[Shard]>(&self.shards);
        let devices = size_of_val::<[Option<DeviceKey>]>(&self.devices)
            + self.by_key.len() * size_of::<(DeviceKey, Known)>();
        widen(shards + fixed + devices)
    }

    /// What makes fingerprints, to be used without holding the index.
    pub(crate) fn hashing(&self) -> Hashing {
        self.hashing.clone()
    }

    /// Adds a device, whose records come after; nothing if it is there already.
    pub(crate) fn add_device(&mut self, key: DeviceKey) -> Option<Added> {
        if self.has(&key) {
            return None;
        }
        let next = || u32::try_from(self.devices.len()).ok();
        // After four thousand million devices one more is not shared.
        let number = self.free.pop().or_else(next);
        let number = number.filter(|number| *number != NOBODY)?;
        let at = narrow(u64::from(number));
        if self.devices.len() <= at {
            self.devices.resize(at + 1, None);
        }
        if let Some(device) = self.devices.get_mut(at) {
            *device = Some(key);
        }
        let known = Known {
            number,
            chunks: 0,
            twins: 0,
        };
        self.by_key.insert(key, known);
        Some(Added { key, number })
    }

    /// The device, to add records to.
    pub(crate) fn added(&self, key: &DeviceKey) -> Option<Added> {
        let number = self.by_key.get(key)?.number;
        Some(Added { key: *key, number })
    }

    /// Adds records of a device, unless it was removed since: for each its number, and the hash of the
    /// digest and the bytes that it is about.
    pub(crate) fn add(
        &mut self,
        device: Added,
        source: Source,
        records: impl IntoIterator<Item = (u32, u64)>,
    ) {
        let known = self.by_key.get_mut(&device.key);
        let Some(known) = known.filter(|known| known.number == device.number) else {
            return;
        };
        let devices = &self.devices;
        let is_alive = |number: u32| is_alive(devices, number);
        let mut added = 0;
        for (number, hash) in records {
            let (shard, fingerprint) = split(hash);
            let entry = Entry {
                fingerprint,
                device: known.number,
                record: match source {
                    Source::Table => number & !TWIN,
                    Source::Twins => number | TWIN,
                },
            };
            let shard = self.shards.get_mut(shard);
            added += u64::from(shard.is_some_and(|it| it.insert(entry, self.places_max, is_alive)));
        }
        self.entries += added;
        match source {
            Source::Table => known.chunks += added,
            Source::Twins => known.twins += added,
        }
    }

    /// Forgets a device, unless it is another one by now.
    pub(crate) fn remove_added(&mut self, device: Added) {
        let known = self.by_key.get(&device.key);
        if known.is_some_and(|known| known.number == device.number) {
            self.remove(&device.key);
        }
    }

    /// Forgets a device and its chunks.
    pub(crate) fn remove(&mut self, key: &DeviceKey) {
        let Some(known) = self.by_key.remove(key) else {
            return;
        };
        if let Some(device) = self.devices.get_mut(narrow(u64::from(known.number))) {
            *device = None;
        }
        let removed = known.chunks + known.twins;
        self.gone.push(known.number);
        self.entries -= removed;
        self.gone_entries += removed;
        // Numbers are not free for ever either: a device without chunks has no entry and takes one.
        let dead = self.gone_entries + widen(self.gone.len());
        if dead > DEAD_MIN.max(self.entries / 4) || self.by_key.is_empty() {
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        for shard in &mut self.shards {
            shard.rebuild(|number| is_alive(&self.devices, number));
            shard.shrink();
        }
        self.free.append(&mut self.gone);
        self.gone_entries = 0;
    }

    /// The records that may be about each of `asked`.
    pub(crate) fn candidates(&self, asked: &[(Digest, u32)]) -> Candidates {
        // By shard, so that each comes into the processor's cache once.
        let mut hashes: Vec<(u64, usize)> = asked
            .iter()
            .enumerate()
            .map(|(index, asked)| (self.hashing.hash(*asked), index))
            .collect();
        hashes.sort_unstable();
        let mut found = Candidates::default();
        let mut last = NOBODY;
        for (hash, asked) in hashes {
            let (shard, fingerprint) = split(hash);
            let entries = self.shards.get(shard).map(|shard| shard.find(fingerprint));
            for entry in entries.into_iter().flatten() {
                let device = self.devices.get(narrow(u64::from(entry.device)));
                let Some(key) = device.copied().flatten() else {
                    continue;
                };
                if entry.device != last {
                    last = entry.device;
                    found.keys.insert(entry.device, key);
                }
                found.candidates.push(Candidate {
                    device: entry.device,
                    source: if entry.record & TWIN == 0 {
                        Source::Table
                    } else {
                        Source::Twins
                    },
                    number: entry.record & !TWIN,
                    asked,
                });
            }
        }
        found.candidates.sort_unstable();
        found
    }
}

fn is_alive(devices: &[Option<DeviceKey>], number: u32) -> bool {
    devices
        .get(narrow(u64::from(number)))
        .is_some_and(Option::is_some)
}

/// The shard of a hash, and what tells it from others there.
fn split(hash: u64) -> (usize, u32) {
    let fingerprint = u32::try_from(hash & u64::from(u32::MAX)).unwrap_or_default();
    (narrow(hash >> (64 - SHARD_BITS)), fingerprint)
}
