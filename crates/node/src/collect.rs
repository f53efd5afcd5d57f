//! What the store holds, for whom, and getting rid of it.
//!
//! A chunk is there for every image that refers to it. Removing an image takes back what no other refers
//! to: blocks are punched out of devices that others still use, and devices that nobody uses are removed. What a
//! mounted image refers to is never touched.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use draught_store::{Device, DeviceError, DeviceKey};

use crate::catalog::{Catalog, keys, read_feeds};
use crate::control::{DfImage, DfReport, OverLimit, Removed};
use crate::error::MountError;
use crate::image::ranges_of;
use crate::mounts::Mounts;
use crate::record::DeviceRecord;
use crate::served::{merged, total};
use crate::state::now;
use crate::worker::Worker;

/// Ranges of bytes of a device.
type Ranges = Arc<[Range<u64>]>;

/// What images refer to: for every device the images, each with its ranges.
#[derive(Debug, Default)]
struct References(BTreeMap<DeviceKey, Vec<(String, Ranges)>>);

impl References {
    /// What all images refer to; only of `devices`, if that is given. An image whose records can't be read refers
    /// to nothing: it is attached anew when somebody wants it.
    fn of(
        mounts: &Mounts,
        worker: &Worker,
        catalog: &mut Catalog,
        devices: Option<&BTreeSet<DeviceKey>>,
    ) -> Self {
        let mut all = Self::default();
        let mut images: BTreeMap<String, (Vec<DeviceRecord>, Option<Vec<Ranges>>)> =
            BTreeMap::new();
        for (name, entry) in catalog.entries(&worker.store).iter() {
            let devices = entry.record.devices.clone();
            images.insert(name.clone(), (devices, None));
        }
        // What is served counts in any case, whatever became of its files.
        for (name, (image, _)) in &mounts.inner.lock().images {
            let served = (image.record.devices.clone(), Some(image.ranges.clone()));
            images.insert(name.clone(), served);
        }
        for (name, (records, served)) in images {
            let Ok(keys) = keys(&records) else { continue };
            let is_asked = |key| devices.is_none_or(|devices| devices.contains(&DeviceKey(key)));
            if !keys.iter().copied().any(is_asked) {
                continue;
            }
            let entry = catalog.entries(&worker.store).get(&name);
            let ranges = match (served, entry) {
                (Some(ranges), _) => ranges,
                (None, None) => continue,
                (None, Some(entry)) => match read_feeds(&worker.store, &name, &entry.record) {
                    Ok(feeds) => ranges_of(keys.len(), &feeds),
                    Err(error) => {
                        tracing::warn!(%error, image = name, "what an image refers to can't be read");
                        continue;
                    }
                },
            };
            for (key, ranges) in keys.into_iter().zip(ranges) {
                if is_asked(key) {
                    let images = all.0.entry(DeviceKey(key)).or_default();
                    images.push((name.clone(), ranges));
                }
            }
        }
        all
    }

    /// What anybody refers to of a device.
    fn union(&self, device: &DeviceKey) -> Option<Vec<Range<u64>>> {
        let images = self.0.get(device)?;
        let ranges = images.iter().flat_map(|(_, ranges)| ranges.iter().cloned());
        Some(merged(ranges.collect()))
    }
}

/// The parts of `range` that none of `ranges` has; these are sorted and do not overlap.
fn outside(range: Range<u64>, ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut outside = Vec::new();
    let mut at = range.start;
    for one in ranges {
        if one.start > at {
            outside.push(at..one.start.min(range.end));
        }
        at = at.max(one.end);
    }
    if at < range.end {
        outside.push(at..range.end);
    }
    outside.retain(|one| one.start < one.end);
    outside
}

/// The parts of ranges that are present on a device.
fn present(device: &Device, ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let each = ranges
        .iter()
        .flat_map(|range| outside(range.clone(), &device.missing(range.clone())));
    each.collect()
}

impl Mounts {
    /// Removes the images of that name from the store. A name is a reference that an image was mounted by, or
    /// its digest.
    pub(crate) fn rm(&self, worker: &Worker, reference: &str) -> Result<Removed, MountError> {
        let mut catalog = self.catalog.lock();
        let named = catalog.named(&worker.store, reference);
        if named.is_empty() {
            let reference = reference.to_owned();
            return Err(MountError::NoImage { reference });
        }
        self.collect_detached(worker);
        for name in &named {
            let inner = self.inner.lock();
            if let Some(live) = inner.live.iter().find(|live| live.record.image == *name) {
                return Err(MountError::Mounted {
                    dir: live.record.dir.clone(),
                    reference: reference.to_owned(),
                });
            }
        }
        self.remove_images(worker, &mut catalog, &named)
    }

    /// Removes images that are not mounted, and what only they refer to.
    fn remove_images(
        &self,
        worker: &Worker,
        catalog: &mut Catalog,
        names: &[String],
    ) -> Result<Removed, MountError> {
        let mut removed = Removed::default();
        let mut devices = BTreeSet::new();
        for name in names {
            if let Some(entry) = catalog.entries(&worker.store).get(name) {
                let own = keys(&entry.record.devices).unwrap_or_default();
                devices.extend(own.into_iter().map(DeviceKey));
            }
            // The record first: what is not referred to is found again by any later collection.
            catalog
                .remove(&worker.store, name)
                .map_err(MountError::Remove)?;
            removed.images += 1;
        }
        let references = References::of(self, worker, catalog, Some(&devices));
        for key in devices {
            self.reclaim(worker, &references, key, &mut removed)?;
        }
        Ok(removed)
    }

    /// Takes back what nobody refers to of a device.
    fn reclaim(
        &self,
        worker: &Worker,
        references: &References,
        key: DeviceKey,
        removed: &mut Removed,
    ) -> Result<(), MountError> {
        let inner = self.inner.lock();
        let served = inner
            .devices
            .get(&key.0)
            .map(|(served, _)| Arc::clone(served));
        drop(inner);
        let Some(used) = references.union(&key) else {
            if served.is_some() {
                return Ok(());
            }
            let usage = worker.store.device_usage(&key);
            match worker.store.remove_device(&key) {
                Ok(()) => {}
                Err(DeviceError::InUse { .. }) => {
                    // By a fetch that its image did not live to see the end of.
                    self.uncollected.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                Err(error) => return Err(MountError::Remove(std::io::Error::other(error))),
            }
            removed.devices += 1;
            removed.bytes += usage.map_or(0, |usage| usage.data_bytes + usage.map_bytes);
            return Ok(());
        };
        let device = match &served {
            Some(served) => served.device(),
            None => match worker.store.open_device(&key) {
                Ok(device) => device,
                // Whoever refers to it finds that out when it is mounted.
                Err(error) => {
                    tracing::warn!(%error, device = %key, "a device can't be opened");
                    return Ok(());
                }
            },
        };
        let unused = present(&device, &outside(0..device.bytes(), &used));
        let punched = if unused.is_empty() {
            Ok(0)
        } else {
            device.punch(&unused)
        };
        drop(device);
        if served.is_none() {
            worker.store.forget(&key);
        }
        match punched {
            Ok(bytes) => removed.bytes += bytes,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(device = %key, error, "what nobody refers to could not be taken back");
            }
        }
        Ok(())
    }

    /// Removes what nobody refers to, images that nobody has used for so many seconds, and, if the store is
    /// larger than it may be, those that were used longest ago.
    pub(crate) fn gc(
        &self,
        worker: &Worker,
        unused_for_s: Option<u64>,
    ) -> Result<Removed, MountError> {
        let mut catalog = self.catalog.lock();
        let mut removed = Removed::default();
        if let Some(age_s) = unused_for_s {
            let before = now().saturating_sub(age_s);
            let old = self.unmounted(worker, &mut catalog);
            let old = old
                .into_iter()
                .filter(|(last_used, _)| *last_used <= before);
            let names: Vec<String> = old.map(|(_, name)| name).collect();
            removed += self.remove_images(worker, &mut catalog, &names)?;
        }
        self.remove_unreadable(worker, &mut catalog, &mut removed)?;
        let references = References::of(self, worker, &mut catalog, None);
        for key in worker.store.devices().map_err(MountError::Usage)? {
            self.reclaim(worker, &references, key, &mut removed)?;
        }
        removed += self.evict_with(worker, &mut catalog)?;
        Ok(removed)
    }

    /// Collects what an earlier collection had to leave.
    pub(crate) fn collect_rest(&self, worker: &Worker) -> Result<(), MountError> {
        if self.uncollected.swap(false, Ordering::Relaxed) {
            self.gc(worker, None)?;
        }
        Ok(())
    }

    /// Removes images whose records can't be read and that nobody uses.
    fn remove_unreadable(
        &self,
        worker: &Worker,
        catalog: &mut Catalog,
        removed: &mut Removed,
    ) -> Result<(), MountError> {
        for name in worker.store.images() {
            let is_live = {
                let inner = self.inner.lock();
                inner.live.iter().any(|live| live.record.image == name)
            };
            if is_live || catalog.entries(&worker.store).contains_key(&name) {
                continue;
            }
            catalog
                .remove(&worker.store, &name)
                .map_err(MountError::Remove)?;
            removed.images += 1;
        }
        Ok(())
    }

    /// Images that are not mounted, with when they were used last, the longest ago first.
    fn unmounted(&self, worker: &Worker, catalog: &mut Catalog) -> Vec<(u64, String)> {
        let inner = self.inner.lock();
        let live: BTreeSet<&String> = inner.live.iter().map(|live| &live.record.image).collect();
        let entries = catalog.entries(&worker.store).iter();
        let idle = entries.filter(|(name, _)| !live.contains(name));
        let mut idle: Vec<(u64, String)> = idle
            .map(|(name, entry)| (entry.usage.last_used, name.clone()))
            .collect();
        idle.sort_unstable();
        idle
    }

    /// Keeps the store within its limit, if it has one.
    pub(crate) fn evict(&self, worker: &Worker) -> Result<Removed, MountError> {
        if worker.cache_bytes_max.is_none() {
            return Ok(Removed::default());
        }
        let mut catalog = self.catalog.lock();
        self.evict_with(worker, &mut catalog)
    }

    fn evict_with(&self, worker: &Worker, catalog: &mut Catalog) -> Result<Removed, MountError> {
        let mut removed = Removed::default();
        let Some(limit) = worker.cache_bytes_max else {
            return Ok(removed);
        };
        let mut idle = self.unmounted(worker, catalog).into_iter();
        loop {
            let used = usage(worker)?;
            if used <= limit {
                self.note_over(worker, None);
                return Ok(removed);
            }
            let Some((_, name)) = idle.next() else {
                self.note_over(worker, self.over(used, limit));
                return Ok(removed);
            };
            tracing::info!(image = name, used, limit, "evicting an image");
            removed += self.remove_images(worker, catalog, &[name])?;
        }
    }

    /// By how much the store is larger than it may be, and for whom.
    fn over(&self, used: u64, limit: u64) -> Option<OverLimit> {
        let bytes = used.checked_sub(limit).filter(|bytes| *bytes > 0)?;
        let inner = self.inner.lock();
        let live = inner
            .live
            .iter()
            .map(|live| live.record.origin.reference.clone());
        let mounted: BTreeSet<String> = live.collect();
        Some(OverLimit {
            bytes,
            mounted: mounted.into_iter().collect(),
        })
    }

    fn note_over(&self, worker: &Worker, over: Option<OverLimit>) {
        let mut noted = worker.over.lock();
        match (&*noted, &over) {
            (None, Some(over)) => tracing::warn!(
                bytes = over.bytes,
                mounted = ?over.mounted,
                "the store is larger than it may be: all that is left is mounted"
            ),
            (Some(_), None) => tracing::info!("the store is within its limit again"),
            _ => {}
        }
        *noted = over;
    }

    /// What the store holds and for whom.
    pub(crate) fn df(&self, worker: &Worker) -> Result<DfReport, MountError> {
        let mut catalog = self.catalog.lock();
        let references = References::of(self, worker, &mut catalog, None);
        let mut images: BTreeMap<String, DfImage> = BTreeMap::new();
        let mut report = DfReport::default();
        for (key, users) in &references.0 {
            let inner = self.inner.lock();
            let served = inner.devices.get(&key.0).map(|(served, _)| served.device());
            drop(inner);
            let device = match served {
                Some(device) => device,
                None => match worker.store.open_device(key) {
                    Ok(device) => {
                        worker.store.forget(key);
                        device
                    }
                    Err(_) => continue,
                },
            };
            let union = merged(
                users
                    .iter()
                    .flat_map(|(_, ranges)| ranges.to_vec())
                    .collect(),
            );
            report.bytes_present += total(&present(&device, &union));
            for (name, ranges) in users {
                let others = users.iter().filter(|(other, _)| other != name);
                let others = merged(others.flat_map(|(_, ranges)| ranges.to_vec()).collect());
                let own = ranges
                    .iter()
                    .flat_map(|range| outside(range.clone(), &others));
                let own: Vec<_> = own.collect();
                let image = images.entry(name.clone()).or_default();
                image.bytes_total += total(ranges);
                image.bytes_own += total(&own);
                image.bytes_present += total(&present(&device, ranges));
            }
        }
        let mounted: BTreeSet<String> = {
            let inner = self.inner.lock();
            inner
                .live
                .iter()
                .map(|live| live.record.image.clone())
                .collect()
        };
        for (name, entry) in catalog.entries(&worker.store).iter() {
            let image = images.entry(name.clone()).or_default();
            image.references = entry.usage.references.iter().cloned().collect();
            image.digest.clone_from(&entry.record.digest);
            image.last_used = entry.usage.last_used;
            image.mounted = mounted.contains(name);
            image.bytes_shared = image.bytes_total - image.bytes_own;
            image.bytes_missing = image.bytes_total - image.bytes_present;
            report.bytes_of_images += image.bytes_present;
        }
        drop(catalog);
        report.images = images.into_values().collect();
        report
            .images
            .sort_by(|a, b| (&a.references, &a.digest).cmp(&(&b.references, &b.digest)));
        for key in worker.store.devices().map_err(MountError::Usage)? {
            if let Ok(usage) = worker.store.device_usage(&key) {
                report.data_bytes_on_disk += usage.data_bytes;
                report.devices += 1;
            }
        }
        report.bytes_on_disk = usage(worker)?;
        report.cache_bytes_max = worker.cache_bytes_max;
        let limit = worker.cache_bytes_max;
        report.over_limit = limit.and_then(|limit| self.over(report.bytes_on_disk, limit));
        Ok(report)
    }
}

/// The bytes that the store takes on disk, with all that it keeps of images.
fn usage(worker: &Worker) -> Result<u64, MountError> {
    worker.store.usage().map_err(MountError::Usage)
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::single_range_in_vec_init,
        reason = "ranges are what is compared"
    )]

    use super::*;

    #[test]
    fn what_is_outside_of_ranges_is_found() {
        let check = |range, ranges: &[Range<u64>], expected: &[Range<u64>]| {
            assert_eq!(outside(range, ranges), expected, "{ranges:?}");
        };
        check(0..10, &[], &[0..10]);
        check(0..10, &[2..4, 6..8], &[0..2, 4..6, 8..10]);
        check(0..10, &[0..10], &[]);
        check(3..5, &[0..4], &[4..5]);
        check(3..5, &[6..9], &[3..5]);
    }
}
