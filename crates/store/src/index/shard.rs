//! A small hash table of fingerprints, one of many.

/// Where the digest with this fingerprint may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) fingerprint: u32,
    /// The device's number in the index; [`NOBODY`] for an entry that is free.
    pub(super) device: u32,
    /// The record, as [`Source`](super::fingerprints::Source) encodes it.
    pub(super) record: u32,
}

/// No device has this number.
pub(super) const NOBODY: u32 = u32::MAX;

const FREE: Entry = Entry {
    fingerprint: 0,
    device: NOBODY,
    record: 0,
};

/// A shard grows by a quarter when four fifths of it are used: five million chunks, in all shards, then
/// take 75 to 95 MB, and never twice that while they grow.
const USED_MAX: (u32, u32) = (4, 5);
const GROWTH: (u32, u32) = (5, 4);
/// The least that a shard which has anything takes.
const ENTRIES_MIN: u32 = 16;

/// Entries by fingerprint: open addressing, the next free one after where it should be.
///
/// Nothing is removed by itself: entries of devices that are gone are left out when the shard grows or is
/// swept.
#[derive(Debug, Default)]
pub(super) struct Shard {
    entries: Box<[Entry]>,
    used: u32,
}

impl Shard {
    pub(super) fn bytes(&self) -> usize {
        size_of_val::<[Entry]>(&self.entries)
    }

    /// Adds an entry, unless `same_max` others that are alive have its fingerprint; whether it did.
    pub(super) fn insert(
        &mut self,
        entry: Entry,
        same_max: usize,
        is_alive: impl Fn(u32) -> bool,
    ) -> bool {
        let same = self.find(entry.fingerprint);
        if same
            .filter(|same| is_alive(same.device))
            .nth(same_max.saturating_sub(1))
            .is_some()
        {
            return false;
        }
        if u64::from(self.used) * u64::from(USED_MAX.1) >= self.capacity() * u64::from(USED_MAX.0) {
            self.rebuild(is_alive);
        }
        self.put(entry);
        true
    }

    /// The entries with this fingerprint, of devices that are alive or not.
    pub(super) fn find(&self, fingerprint: u32) -> impl Iterator<Item = Entry> {
        let (before, after) = self.split(fingerprint);
        after
            .iter()
            .chain(before)
            .take_while(|entry| entry.device != NOBODY)
            .filter(move |entry| entry.fingerprint == fingerprint)
            .copied()
    }

    /// Leaves out the entries of devices that are gone, and makes room for one more.
    pub(super) fn rebuild(&mut self, is_alive: impl Fn(u32) -> bool) {
        let old = std::mem::take(&mut self.entries);
        let alive = || {
            old.iter()
                .filter(|entry| entry.device != NOBODY && is_alive(entry.device))
        };
        let count = u32::try_from(alive().count()).unwrap_or(u32::MAX);
        self.used = 0;
        if count == 0 {
            self.entries = vec![FREE; crate::device::narrow(u64::from(ENTRIES_MIN))].into();
            return;
        }
        let full = count.saturating_add(1).saturating_mul(USED_MAX.1) / USED_MAX.0;
        let grown = full.saturating_mul(GROWTH.0) / GROWTH.1;
        let capacity = crate::device::narrow(u64::from(grown.max(ENTRIES_MIN)));
        self.entries = vec![FREE; capacity].into();
        alive().for_each(|entry| self.put(*entry));
    }

    /// Gives back all memory if nothing is in it any more.
    pub(super) fn shrink(&mut self) {
        if self.used == 0 {
            self.entries = Box::default();
        }
    }

    /// Puts an entry where there is room for it.
    fn put(&mut self, entry: Entry) {
        let at = self.home(entry.fingerprint);
        let (before, after) = self.entries.split_at_mut(at);
        let mut free = after
            .iter_mut()
            .chain(before)
            .filter(|it| it.device == NOBODY);
        if let Some(free) = free.next() {
            *free = entry;
            self.used += 1;
        }
    }

    fn split(&self, fingerprint: u32) -> (&[Entry], &[Entry]) {
        self.entries.split_at(self.home(fingerprint))
    }

    /// Where an entry should be. Fingerprints are spread evenly over the shard in their order.
    fn home(&self, fingerprint: u32) -> usize {
        crate::device::narrow((u64::from(fingerprint) * self.capacity()) >> 32)
    }

    fn capacity(&self) -> u64 {
        crate::device::widen(self.entries.len())
    }
}
