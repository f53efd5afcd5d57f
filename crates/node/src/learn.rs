//! Second digests of chunks, learned in the background.
//!
//! Formats name the same bytes by SHA-256 or by BLAKE3. So that images of both kinds share chunks, what was
//! filled lately, and is in memory still, is digested by the other algorithm too, a little at a time and
//! while nobody waits for anything.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use draught_digest::{Algorithm, Digest};
use draught_fill::FeedChunk;
use draught_store::Device;
use parking_lot::Mutex;

use crate::image::Feed;
use crate::worker::Worker;

/// Bytes that are digested in one go: a tenth of a second of one processor.
const ROUND_BYTES: u64 = 128 << 20;
/// Ranges of extents that wait for it. What finds no room is not learned, and at worst fetched twice.
const RANGES_MAX: usize = 1024;

/// Extents that were filled and not digested yet.
#[derive(Debug, Default)]
pub(crate) struct Fresh(Mutex<Vec<Range<u32>>>);

impl Fresh {
    pub(crate) fn add(&self, extents: Range<u32>) {
        let mut ranges = self.0.lock();
        if let Some(last) = ranges.last_mut()
            && last.end == extents.start
        {
            last.end = extents.end;
        } else if ranges.len() < RANGES_MAX {
            ranges.push(extents);
        }
    }

    fn take(&self) -> Option<Range<u32>> {
        self.0.lock().pop()
    }

    fn put_back(&self, extents: Range<u32>) {
        if !extents.is_empty() {
            self.0.lock().push(extents);
        }
    }
}

fn other(algorithm: Algorithm) -> Algorithm {
    match algorithm {
        Algorithm::Sha256 => Algorithm::Blake3,
        Algorithm::Blake3 => Algorithm::Sha256,
    }
}

/// The digest of a chunk by the other algorithm, if it is there and is what it should be.
fn twin(device: &Device, chunk: &FeedChunk) -> Option<Digest> {
    if !device.is_present(chunk.blocks()) {
        return None;
    }
    let file = File::from(device.as_fd().try_clone_to_owned().ok()?);
    let mut bytes = vec![0; usize::try_from(chunk.bytes).ok()?];
    file.read_exact_at(&mut bytes, chunk.place).ok()?;
    // What the disk gives back is not what was verified before it was written.
    chunk
        .digest
        .verifies(&bytes)
        .then(|| other(chunk.digest.algorithm()).digest(&bytes))
}

impl Worker {
    /// Learns some second digests, unless there is better to do.
    pub(crate) fn learn_some(&self) {
        let mut left = ROUND_BYTES;
        for image in self.engine.images() {
            for feed in self.engine.feeds_of(image.id) {
                while left > 0
                    && self.engine.outlook().faults_waiting == 0
                    && let Some(extents) = feed.fresh.take()
                {
                    left = self.learn_from(&feed, extents, left);
                }
            }
        }
    }

    /// Learns from extents until so many bytes were digested; gives how many are left of these.
    fn learn_from(&self, feed: &Feed, extents: Range<u32>, mut left: u64) -> u64 {
        let mut twins: BTreeMap<u16, Vec<(u64, Digest)>> = BTreeMap::new();
        let mut next = extents.start;
        while next < extents.end && left > 0 {
            let chunks = feed
                .map
                .extent(next)
                .map(|extent| feed.map.chunks_of(extent));
            next += 1;
            for chunk in chunks.into_iter().flatten() {
                left = left.saturating_sub(chunk.bytes.into());
                let device = feed.image.devices.get(usize::from(chunk.device));
                if let Some(twin) = device.and_then(|served| twin(&served.device(), chunk)) {
                    twins
                        .entry(chunk.device)
                        .or_default()
                        .push((chunk.place, twin));
                }
            }
        }
        feed.fresh.put_back(next..extents.end);
        for (device, twins) in twins {
            let Some(served) = feed.image.devices.get(usize::from(device)) else {
                continue;
            };
            let key = served.device().key();
            if let Err(error) = self.store.learn(&key, &twins) {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(device = %key, error, "second digests could not be kept");
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fresh_is_taken_once_and_is_bounded() {
        let fresh = Fresh::default();
        fresh.add(0..2);
        fresh.add(2..5);
        assert_eq!((fresh.take(), fresh.take()), (Some(0..5), None));
        fresh.put_back(3..5);
        fresh.put_back(5..5);
        assert_eq!((fresh.take(), fresh.take()), (Some(3..5), None));
        for at in 0..10_000 {
            fresh.add(at * 2..at * 2 + 1);
        }
        assert_eq!(fresh.0.lock().len(), RANGES_MAX);
    }
}
