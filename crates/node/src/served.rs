//! A device that a worker serves.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use draught_fill::{DeviceId, ImageId};
use draught_mount::Listener;
use draught_store::{Device, Store};
use draught_tree::BLOCK_BYTES;
use parking_lot::{Mutex, RwLock};

/// A device, and what of it the mounted images use.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) id: DeviceId,
    pub(crate) inode: u64,
    /// Replaced when the disk failed and the device was opened anew.
    device: RwLock<Arc<Device>>,
    wanted: RwLock<Wanted>,
    /// Whether reads raise events, as far as we know. Held locked while that, or what is wanted, changes:
    /// a device must never be found complete by one and be marked for more by another at the same time.
    marked: Mutex<bool>,
    /// Whether there is anything to be done when it is complete: read without the lock.
    lazy: AtomicBool,
    /// Whether somebody is about to take the mark away.
    settling: AtomicBool,
}

/// What mounted images use of a device.
#[derive(Debug, Default)]
struct Wanted {
    /// Each image's ranges of bytes: whole blocks, sorted, none touching the next.
    users: Vec<(ImageId, Arc<[Range<u64>]>)>,
    /// All of them together, alike.
    ranges: Vec<Range<u64>>,
    bytes: u64,
}

impl Wanted {
    fn refresh(&mut self) {
        let all = self
            .users
            .iter()
            .flat_map(|(_, ranges)| ranges.iter().cloned());
        self.ranges = merged(all.collect());
        self.bytes = total(&self.ranges);
    }
}

/// Ranges sorted and joined where they touch.
pub(crate) fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Bytes of ranges that do not overlap.
pub(crate) fn total(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// Whether a range overlaps any of ranges that are sorted and do not overlap.
pub(crate) fn overlaps(ranges: &[Range<u64>], range: &Range<u64>) -> bool {
    let at = ranges.partition_point(|one| one.end <= range.start);
    ranges.get(at).is_some_and(|one| one.start < range.end)
}

impl Served {
    pub(crate) fn new(id: DeviceId, device: Arc<Device>) -> Self {
        Self {
            id,
            inode: device.inode(),
            device: RwLock::new(device),
            wanted: RwLock::default(),
            // One that was marked by a worker before is, until it is found complete.
            marked: Mutex::new(true),
            lazy: AtomicBool::new(true),
            settling: AtomicBool::new(false),
        }
    }

    /// The device as it is open now.
    pub(crate) fn device(&self) -> Arc<Device> {
        Arc::clone(&self.device.read())
    }

    /// Opens the device anew if its disk failed: what was durable counts, the rest is fetched again.
    ///
    /// # Errors
    /// That the disk fails still; the device stays as it was.
    pub(crate) fn revive(&self, store: &Store) -> io::Result<()> {
        let failed = self.device();
        if !failed.is_poisoned() {
            return Ok(());
        }
        let file = failed.as_fd().try_clone_to_owned()?;
        store.forget(&failed.key());
        let device = store
            .adopt(&failed.key(), failed.bytes(), file)
            .map_err(io::Error::other)?;
        *self.device.write() = device;
        tracing::warn!(device = %failed.key(), "a device whose disk failed is used again");
        Ok(())
    }

    /// One more image that uses these ranges of it. To be called before it can be read through that image.
    pub(crate) fn add_user(&self, image: ImageId, ranges: Arc<[Range<u64>]>) {
        let _alone = self.marked.lock();
        let mut wanted = self.wanted.write();
        wanted.users.push((image, ranges));
        wanted.refresh();
        self.lazy.store(true, Ordering::Release);
    }

    /// One image less. To be called when nobody can read it through that image any more.
    pub(crate) fn remove_user(&self, image: ImageId) {
        let _alone = self.marked.lock();
        let mut wanted = self.wanted.write();
        wanted.users.retain(|(user, _)| *user != image);
        wanted.refresh();
        self.lazy.store(true, Ordering::Release);
    }

    /// The images that use a range of it, the youngest first.
    pub(crate) fn users_of(&self, range: &Range<u64>) -> Vec<ImageId> {
        let wanted = self.wanted.read();
        let users = wanted.users.iter().rev();
        let users = users.filter(|(_, ranges)| overlaps(ranges, range));
        users.map(|(image, _)| *image).collect()
    }

    /// Whether all of a range that any mounted image uses is there. Nobody reads the rest.
    pub(crate) fn has(&self, range: &Range<u64>) -> bool {
        let device = self.device();
        if device.is_present(range.clone()) {
            return true;
        }
        let wanted = self.wanted.read();
        let missing = device.missing(range.clone());
        !missing
            .iter()
            .any(|missing| overlaps(&wanted.ranges, missing))
    }

    /// Whether everything that any mounted image uses is there.
    pub(crate) fn is_complete(&self) -> bool {
        let device = self.device();
        let wanted = self.wanted.read();
        device.bytes_present() >= wanted.bytes
            && wanted
                .ranges
                .iter()
                .all(|range| device.is_present(range.clone()))
    }

    /// Whether it has everything and is marked still, and nobody is about to change that.
    pub(crate) fn is_due(&self) -> bool {
        self.lazy.load(Ordering::Acquire)
            && self.is_complete()
            && !self.settling.swap(true, Ordering::AcqRel)
    }

    /// Whether reads raise events.
    pub(crate) fn is_marked(&self) -> bool {
        *self.marked.lock()
    }

    /// Marks it: from now on, opens of it raise events. For every mount, complete or not: a mount that
    /// opened a device unmarked can never be made to raise events.
    pub(crate) fn mark(&self, listener: &Listener) -> io::Result<()> {
        let mut marked = self.marked.lock();
        *marked = true;
        self.lazy.store(true, Ordering::Release);
        listener.mark(&self.device().as_fd())
    }

    /// A device that has everything raises no events any more: reads cost what a local image's cost.
    /// Once it is durable, that is: nothing could be filled again if the disk then lost a block.
    pub(crate) fn unmark_if_complete(&self, listener: &Listener) {
        self.settle(listener);
        self.settling.store(false, Ordering::Release);
    }

    fn settle(&self, listener: &Listener) {
        if !self.lazy.load(Ordering::Acquire) || !self.is_complete() {
            return;
        }
        // Before the lock: it takes its time, and a mount must not wait for it.
        let device = self.device();
        if let Err(error) = device.sync() {
            tracing::error!(%error, device = %device.key(), "a complete device is not durable");
            return;
        }
        let mut marked = self.marked.lock();
        // A mount that came in between may want more of it, and the disk may have failed.
        if !self.is_complete() || !Arc::ptr_eq(&device, &self.device()) || device.is_poisoned() {
            return;
        }
        self.lazy.store(false, Ordering::Release);
        if !std::mem::replace(&mut *marked, false) {
            return;
        }
        match listener.unmark(&device.as_fd()) {
            Ok(()) => tracing::info!(device = %device.key(), "a device is complete"),
            Err(error) => {
                *marked = true;
                self.lazy.store(true, Ordering::Release);
                tracing::warn!(%error, "a complete device stays marked");
            }
        }
    }

    /// Takes the mark away because nobody uses the device any more.
    pub(crate) fn unmark(&self, listener: &Listener) {
        let mut marked = self.marked.lock();
        if std::mem::replace(&mut *marked, false)
            && let Err(error) = listener.unmark(&self.device().as_fd())
        {
            tracing::debug!(%error, "a device stays marked");
        }
    }

    /// The part of a device that a read is about: whole blocks, not beyond the end. A read whose size is
    /// not told is about one block.
    pub(crate) fn clamp(&self, offset: u64, count: u64) -> Range<u64> {
        let end = self.device.read().bytes();
        let count = if count == 0 { BLOCK_BYTES } else { count };
        let start = offset.min(end);
        start..offset.saturating_add(count).min(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_where_they_touch_and_are_found() {
        let ranges = merged(vec![8..10, 0..4, 4..6, 9..12]);
        assert_eq!(ranges, [0..6, 8..12]);
        assert_eq!(total(&ranges), 10);
        for (range, expected) in [(5..6, true), (6..8, false), (7..9, true), (12..20, false)] {
            assert_eq!(overlaps(&ranges, &range), expected, "{range:?}");
        }
    }
}
