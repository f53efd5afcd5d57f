//! An image that a worker serves: where its blobs can be had, and what is known of how it is read.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::Bytes;
use draught_digest::Digest;
use draught_fill::{DeviceId, Failure, FeedId, FeedMap, ImageId, Priority};
use draught_mount::Readahead;
use draught_source::{Class, Source, SourceError};
use draught_sys::resident::Resident;
use draught_tree::BLOCK_BYTES;
use parking_lot::{Mutex, RwLock};

use crate::fill::Unfilled;
use crate::latency::Latency;
use crate::learn::Fresh;
use crate::paths::Metadata;
use crate::patience::Patience;
use crate::record::ImageRecord;
use crate::served::{Served, merged, total};
use crate::touches::Touches;

/// How far the kernel reads ahead in a mount that lacks something, in KiB. Measured: 128, its default, makes
/// events of 128 KiB and twelve times as many as this, which makes them of 4 MiB at most.
const LAZY_READAHEAD_KIB: u32 = 2048;
/// The kernel's default, for when nothing is missing: measured, a tenth faster on a tree of small files.
const USUAL_READAHEAD_KIB: u32 = 128;
/// Fetches and waits that are kept of an image for [`crate::ImageTrace`], each: the first ones, for what
/// is asked is why a start was slow. They take some 600 KiB when there are as many.
const LOG_MAX: usize = 8192;

/// A blob of an image, and where its chunks belong.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) id: FeedId,
    /// Which of the image's it is.
    pub(crate) index: usize,
    pub(crate) blob: Digest,
    pub(crate) map: Arc<FeedMap>,
    pub(crate) image: Arc<Image>,
    /// Extents whose corruption was logged: once is enough until they are right.
    complained: Mutex<BTreeSet<u32>>,
    /// What was filled lately.
    pub(crate) fresh: Fresh,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) id: ImageId,
    /// Its name in the store.
    pub(crate) name: String,
    pub(crate) record: ImageRecord,
    /// In the order of the metadata image's device table.
    pub(crate) devices: Vec<Arc<Served>>,
    /// What of each device it uses: ranges of bytes, sorted.
    pub(crate) ranges: Vec<Arc<[Range<u64>]>>,
    /// One for each mount, the oldest first.
    sources: RwLock<Vec<Arc<dyn Source>>>,
    pub(crate) since: Instant,
    pub(crate) stats: Stats,
    pub(crate) touches: Mutex<Touches>,
    pub(crate) log: Mutex<Log>,
    /// How far the kernel reads ahead in its mounts, until nothing is missing.
    readahead: Mutex<Vec<Readahead>>,
    /// Its tree, while somebody serves it by FUSE: once for all mounts.
    tree: Mutex<Weak<Metadata>>,
    /// Its metadata, kept in memory.
    resident: Mutex<Option<Resident>>,
    patience: Mutex<Patience>,
    /// Whether all of it is fetched because readers waited too long.
    fetches_all: AtomicBool,
}

/// Counts since the worker started or the image was mounted.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Stored bytes that were fetched for it.
    pub(crate) bytes_fetched: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) requests_failed: AtomicU64,
    /// Reads that waited for something.
    pub(crate) faults: AtomicU64,
    pub(crate) faults_failed: AtomicU64,
    /// How long they waited.
    pub(crate) latency: Latency,
    pub(crate) last_error: Mutex<Option<String>>,
    /// Whether the last fetch failed: what changes is logged, not every attempt.
    down: AtomicBool,
}

/// What happened, in short.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) fetches: Vec<Fetched>,
    pub(crate) faults: Vec<Waited>,
    /// What there was no room for.
    pub(crate) dropped: u64,
}

/// A fetch that ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fetched {
    pub(crate) at_ms: u64,
    pub(crate) took_ms: u64,
    pub(crate) feed: u32,
    pub(crate) start: u64,
    pub(crate) bytes: u64,
    pub(crate) priority: Priority,
    pub(crate) ok: bool,
}

/// A read that waited.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waited {
    pub(crate) at_ms: u64,
    pub(crate) waited_us: u64,
    pub(crate) device: DeviceId,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) ok: bool,
}

impl Log {
    pub(crate) fn fetched(&mut self, one: Fetched) {
        if self.fetches.len() < LOG_MAX {
            self.fetches.push(one);
        } else {
            self.dropped += 1;
        }
    }

    pub(crate) fn waited(&mut self, one: Waited) {
        if self.faults.len() < LOG_MAX {
            self.faults.push(one);
        } else {
            self.dropped += 1;
        }
    }
}

/// Which ranges of each of so many devices these feeds use.
pub(crate) fn ranges_of(devices: usize, feeds: &[Arc<FeedMap>]) -> Vec<Arc<[Range<u64>]>> {
    let mut ranges = vec![Vec::new(); devices];
    for chunk in feeds.iter().flat_map(|feed| feed.chunks()) {
        if let Some(ranges) = ranges.get_mut(usize::from(chunk.device)) {
            ranges.push(chunk.blocks());
        }
    }
    ranges
        .into_iter()
        .map(|ranges| merged(ranges).into())
        .collect()
}

impl Image {
    pub(crate) fn new(
        id: ImageId,
        name: String,
        record: ImageRecord,
        devices: Vec<Arc<Served>>,
        ranges: Vec<Arc<[Range<u64>]>>,
        touches: Touches,
    ) -> Self {
        Self {
            id,
            name,
            record,
            devices,
            ranges,
            sources: RwLock::default(),
            since: Instant::now(),
            stats: Stats::default(),
            touches: Mutex::new(touches),
            log: Mutex::default(),
            readahead: Mutex::default(),
            tree: Mutex::default(),
            resident: Mutex::default(),
            patience: Mutex::default(),
            fetches_all: AtomicBool::new(false),
        }
    }

    /// Reads of one more mount are to come in large pieces while something is missing.
    pub(crate) fn read_far_ahead(&self, readahead: Readahead) {
        if let Err(error) = readahead.set(LAZY_READAHEAD_KIB) {
            tracing::debug!(%error, "readahead stays what it was");
        }
        self.readahead.lock().push(readahead);
    }

    /// When nothing can be missing any more, the kernel reads ahead as it does everywhere.
    pub(crate) fn read_ahead_as_usual(&self) {
        let lacks = |served: &Arc<Served>| served.is_marked() || !served.is_complete();
        if self.devices.iter().any(lacks) {
            return;
        }
        for readahead in self.readahead.lock().drain(..) {
            if let Err(error) = readahead.set(USUAL_READAHEAD_KIB) {
                tracing::debug!(%error, "readahead stays what it was");
            }
        }
    }

    /// Its tree, read by `read` if nobody has it.
    pub(crate) fn tree<E>(
        &self,
        read: impl FnOnce() -> Result<Metadata, E>,
    ) -> Result<Arc<Metadata>, E> {
        let mut tree = self.tree.lock();
        if let Some(tree) = tree.upgrade() {
            return Ok(tree);
        }
        let new = Arc::new(read()?);
        *tree = Arc::downgrade(&new);
        Ok(new)
    }

    /// Keeps its metadata in memory, or, with none, lets go of it.
    pub(crate) fn keep_resident(&self, resident: Option<Resident>) {
        *self.resident.lock() = resident;
    }

    /// Bytes of its metadata that are kept in memory.
    pub(crate) fn bytes_resident(&self) -> usize {
        self.resident.lock().as_ref().map_or(0, Resident::bytes)
    }

    /// One more source for it.
    pub(crate) fn add_source(&self, source: Arc<dyn Source>) {
        self.sources.write().push(source);
    }

    /// One source less.
    pub(crate) fn remove_source(&self, source: &Arc<dyn Source>) {
        let is_it =
            |one: &Arc<dyn Source>| std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(source));
        let mut sources = self.sources.write();
        if let Some(at) = sources.iter().position(is_it) {
            sources.remove(at);
        }
    }

    /// The names of its sources.
    pub(crate) fn source_labels(&self) -> Vec<String> {
        self.sources
            .read()
            .iter()
            .map(|source| source.label())
            .collect()
    }

    pub(crate) fn age_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Bytes of all its chunks that are there, in whole blocks.
    pub(crate) fn bytes_present(&self) -> u64 {
        let each = self
            .devices
            .iter()
            .zip(&self.ranges)
            .map(|(served, ranges)| {
                let device = served.device();
                let missing = |range: &Range<u64>| total(&device.missing(range.clone()));
                total(ranges) - ranges.iter().map(missing).sum::<u64>()
            });
        each.sum()
    }

    /// Stored bytes of what is missing, about: its share of all.
    fn bytes_missing_stored(&self) -> u64 {
        let stored = self.record.blobs.iter().map(|blob| blob.stored_bytes);
        let stored = u128::from(stored.fold(0, u64::saturating_add));
        let total = self.bytes_total();
        let missing = total.saturating_sub(self.bytes_present());
        let share = stored * u128::from(missing) / u128::from(total.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// Whether all of it is fetched because readers waited too long.
    pub(crate) fn fetches_all(&self) -> bool {
        self.fetches_all.load(Ordering::Relaxed)
    }

    /// Notes that a reader waited from then until now; says once that it is better to fetch everything. `rate`: what its
    /// source was seen to deliver, in bytes per millisecond.
    pub(crate) fn is_out_of_patience(
        &self,
        since: Instant,
        rate: impl FnOnce() -> Option<u64>,
    ) -> bool {
        if self.fetches_all() {
            return false;
        }
        let missing = || self.bytes_missing_stored();
        let mut patience = self.patience.lock();
        patience.is_lost(since, Instant::now(), missing, rate)
            && !self.fetches_all.swap(true, Ordering::Relaxed)
    }

    /// Bytes of all its chunks, in whole blocks.
    pub(crate) fn bytes_total(&self) -> u64 {
        self.ranges.iter().map(|ranges| total(ranges)).sum()
    }

    /// Notes that a range of a device was touched.
    pub(crate) fn touched(&self, served: &Served, range: &Range<u64>, at_ms: u64) {
        let device = self.devices.iter().position(|one| one.id == served.id);
        let block = |bytes: u64| u32::try_from(bytes / BLOCK_BYTES).unwrap_or(u32::MAX);
        if let Some(device) = device.and_then(|device| u16::try_from(device).ok()) {
            let at_ms = u32::try_from(at_ms).unwrap_or(u32::MAX);
            let blocks = block(range.start)..block(range.end.next_multiple_of(BLOCK_BYTES));
            self.touches.lock().touch(at_ms, device, blocks);
        }
    }

    /// Reads stored bytes of a blob from the first source that has them.
    pub(crate) async fn read(&self, blob: &Digest, range: Range<u64>) -> Result<Bytes, Failure> {
        let sources = self.sources.read().clone();
        let mut failure = Failure::Refused;
        for source in sources {
            self.stats.requests.fetch_add(1, Ordering::Relaxed);
            match source.read_range(blob, range.clone()).await {
                Ok(bytes) => {
                    let len = bytes.len() as u64;
                    self.stats.bytes_fetched.fetch_add(len, Ordering::Relaxed);
                    if self.stats.down.swap(false, Ordering::Relaxed) {
                        tracing::info!(image = self.record.digest, %blob, "the source is back");
                    }
                    return Ok(bytes);
                }
                Err(error) => {
                    failure = failure_of(&error);
                    self.stats.requests_failed.fetch_add(1, Ordering::Relaxed);
                    let error = &error as &dyn std::error::Error;
                    if !self.stats.down.swap(true, Ordering::Relaxed) {
                        tracing::warn!(image = self.record.digest, %blob, ?range, error, "a fetch failed");
                    }
                    *self.stats.last_error.lock() = Some(error.to_string());
                }
            }
        }
        Err(failure)
    }
}

impl Feed {
    pub(crate) fn new(
        id: FeedId,
        index: usize,
        blob: Digest,
        map: Arc<FeedMap>,
        image: Arc<Image>,
    ) -> Self {
        Self {
            id,
            index,
            blob,
            map,
            image,
            complained: Mutex::default(),
            fresh: Fresh::default(),
        }
    }

    /// Logs what could not be filled, each extent once.
    pub(crate) fn note(&self, extents: &Range<u32>, unfilled: &[Unfilled]) {
        let mut complained = self.complained.lock();
        if unfilled.is_empty() {
            self.fresh.add(extents.clone());
            // Nearly always empty, and then nothing is looked for.
            if !complained.is_empty() {
                complained.retain(|extent| !extents.contains(extent));
            }
            return;
        }
        if unfilled.iter().any(|one| one.failure == Failure::Corrupt) {
            for source in self.image.sources.read().iter() {
                source.distrust(&self.blob);
            }
        }
        for one in unfilled {
            if complained.insert(one.extent) {
                let image = &self.image.record.digest;
                tracing::error!(image, blob = %self.blob, why = one.why, "a chunk is not shown: reads of it fail");
            }
            *self.image.stats.last_error.lock() = Some(format!("blob {}: {}", self.blob, one.why));
        }
    }
}

/// What an error of a source means for the planner.
fn failure_of(error: &SourceError) -> Failure {
    match error.class() {
        Class::Unavailable { retry_after } => Failure::Unavailable {
            retry_after_ms: retry_after.and_then(|wait| u64::try_from(wait.as_millis()).ok()),
        },
        Class::Corrupt => Failure::Corrupt,
        Class::Denied | Class::NotFound | Class::Refused => Failure::Refused,
    }
}
