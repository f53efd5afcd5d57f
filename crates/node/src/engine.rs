//! Fault → Fetch → Ready: the kernel's reads, the planner, the network and the store, joined.
//!
//! The planner decides and does nothing; everything that is done is done here. Whoever changes the
//! planner's state (a listener thread with a fault, a task with a fetch's outcome, the clock) then calls
//! [`Engine::pump`], which starts what is to be fetched and answers who is to be answered.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use draught_digest::Digest;
use draught_fill::{DeviceId, DeviceMap, Failure, Fault, Fetch, Planner, Ready};
use draught_mount::{Listener, Read};
use draught_source::{Class, Source, SourceError};
use draught_store::{Device, Store};
use draught_tree::BLOCK_BYTES;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::fill::{Unfilled, fill};

/// What a worker serves: a device, what belongs on it and where that can be had.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) id: DeviceId,
    pub(crate) inode: u64,
    /// Replaced when the disk failed and the device was opened anew.
    device: RwLock<Arc<Device>>,
    pub(crate) map: Arc<DeviceMap>,
    pub(crate) blob: Digest,
    /// One for each image that has it, the longest attached first.
    sources: RwLock<Vec<Arc<dyn Source>>>,
    /// About how many extents are not present: zero is to be looked at closer.
    missing: AtomicUsize,
    /// Whether reads raise events, as far as we know.
    pub(crate) marked: AtomicBool,
    pub(crate) stats: Stats,
}

/// Counts since the worker started.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) bytes_fetched: AtomicU64,
    pub(crate) faults: AtomicU64,
    pub(crate) last_error: Mutex<Option<String>>,
    /// Extents whose corruption was logged: once is enough until they are right.
    complained: Mutex<BTreeSet<u32>>,
    /// Whether the last fetch failed: what changes is logged, not every attempt.
    down: AtomicBool,
}

/// A read that is waited for, in one device or, if nobody knows which, in all of them.
#[derive(Debug)]
struct Waiting {
    read: Read,
    devices: Vec<Arc<Served>>,
    remaining: usize,
    failure: Option<io::ErrorKind>,
    /// Times that it was planned.
    plans: u32,
}

impl Waiting {
    /// Whether all of it is there. The store has the last word: it takes presence back when what was
    /// written turns out not to be on the disk, and then the planner is wrong.
    fn is_present(&self) -> bool {
        let mut devices = self.devices.iter();
        devices.all(|served| served.has(&served.clamp(&self.read)))
    }
}

/// Times that a read is planned because the store and the planner disagree about what is present.
const PLANS_MAX: u32 = 3;

#[derive(Debug)]
struct Plan {
    planner: Planner,
    waiting: HashMap<u64, Waiting>,
    /// Which read a planner's token is for.
    tokens: HashMap<u64, u64>,
    next: u64,
}

impl Plan {
    /// Plans a read.
    fn wait(&mut self, now_ms: u64, mut waiting: Waiting) {
        let id = self.next;
        self.next += 1;
        waiting.remaining = waiting.devices.len();
        waiting.plans += 1;
        for served in &waiting.devices {
            let token = self.next;
            self.next += 1;
            self.tokens.insert(token, id);
            let (device, range) = (served.id, served.clamp(&waiting.read));
            let fault = Fault {
                device,
                range,
                token,
            };
            self.planner.fault(now_ms, fault);
        }
        self.waiting.insert(id, waiting);
    }

    /// Takes an answer of the planner; gives the read that it was the last for.
    fn settle(&mut self, now_ms: u64, ready: Ready) -> Option<(Read, Result<(), io::ErrorKind>)> {
        let id = self.tokens.remove(&ready.token)?;
        let waiting = self.waiting.get_mut(&id)?;
        waiting.remaining -= 1;
        if let Err(failure) = &ready.result {
            waiting.failure = Some(match failure {
                Failure::NoSpace => io::ErrorKind::StorageFull,
                _ => io::ErrorKind::Other,
            });
        }
        if waiting.remaining > 0 {
            return None;
        }
        let waiting = self.waiting.remove(&id)?;
        if let Some(failure) = waiting.failure {
            return Some((waiting.read, Err(failure)));
        }
        if waiting.is_present() {
            return Some((waiting.read, Ok(())));
        }
        if waiting.plans >= PLANS_MAX {
            return Some((waiting.read, Err(io::ErrorKind::Other)));
        }
        // The disk failed, and the planner believes still in what is lost.
        for served in &waiting.devices {
            let (device, range) = (served.device(), served.clamp(&waiting.read));
            self.planner
                .recheck(served.id, &range, |range| device.is_present(range));
        }
        self.wait(now_ms, waiting);
        None
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine {
    listener: Listener,
    runtime: tokio::runtime::Handle,
    epoch: Instant,
    plan: Mutex<Plan>,
    by_inode: RwLock<HashMap<u64, Arc<Served>>>,
    by_id: RwLock<HashMap<DeviceId, Arc<Served>>>,
    clock: Notify,
}

impl Engine {
    pub(crate) fn new(
        listener: Listener,
        runtime: tokio::runtime::Handle,
        settings: draught_fill::Settings,
    ) -> Arc<Self> {
        let plan = Plan {
            planner: Planner::new(settings),
            waiting: HashMap::new(),
            tokens: HashMap::new(),
            next: 0,
        };
        Arc::new(Self {
            listener,
            runtime,
            epoch: Instant::now(),
            plan: Mutex::new(plan),
            by_inode: RwLock::default(),
            by_id: RwLock::default(),
            clock: Notify::new(),
        })
    }

    pub(crate) fn listener(&self) -> &Listener {
        &self.listener
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Serves a device from now on.
    pub(crate) fn add(&self, served: Served) -> Arc<Served> {
        let served = Arc::new(served);
        let device = served.device();
        self.plan
            .lock()
            .planner
            .add_device(served.id, Arc::clone(&served.map), |range| {
                device.is_present(range)
            });
        self.by_id.write().insert(served.id, Arc::clone(&served));
        self.by_inode
            .write()
            .insert(served.inode, Arc::clone(&served));
        served
    }

    /// Serves a device no longer; nothing that could raise events may refer to it any more.
    pub(crate) fn remove(self: &Arc<Self>, id: DeviceId) {
        if let Some(served) = self.by_id.write().remove(&id) {
            self.by_inode.write().remove(&served.inode);
        }
        self.plan.lock().planner.remove_device(id);
        // Readers that were killed while they waited are forgotten now, and not at the next read.
        self.pump();
    }

    pub(crate) fn served(&self, id: DeviceId) -> Option<Arc<Served>> {
        self.by_id.read().get(&id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Served>> {
        self.by_id.read().values().cloned().collect()
    }

    /// Takes reads from the kernel and answers or plans them.
    pub(crate) fn on_reads(self: &Arc<Self>, reads: Vec<Read>) {
        let mut planned = false;
        for read in reads {
            planned |= self.on_read(read);
        }
        if planned {
            self.pump();
        }
    }

    /// Whether the planner has it now.
    fn on_read(&self, read: Read) -> bool {
        let Some(inode) = read.inode else {
            // A worker died between taking this event and asking which file it is about. Whichever it
            // is: when the range is there in all of them, it is there in that one.
            tracing::warn!(
                offset = read.offset,
                count = read.count,
                "filling for an unknown device"
            );
            let all = self.all();
            self.plan_faults(read, &all);
            return true;
        };
        let Some(served) = self.by_inode.read().get(&inode).cloned() else {
            tracing::error!(inode, "a read of a device that no attached image has");
            self.answer(&read, Err(io::ErrorKind::NotFound));
            return false;
        };
        if served.has(&served.clamp(&read)) {
            self.answer(&read, Ok(()));
            return false;
        }
        served.stats.faults.fetch_add(1, Ordering::Relaxed);
        self.plan_faults(read, std::slice::from_ref(&served));
        true
    }

    fn plan_faults(&self, read: Read, devices: &[Arc<Served>]) {
        if devices.is_empty() {
            self.answer(&read, Err(io::ErrorKind::NotFound));
            return;
        }
        let waiting = Waiting {
            read,
            devices: devices.to_vec(),
            remaining: 0,
            failure: None,
            plans: 0,
        };
        self.plan.lock().wait(self.now_ms(), waiting);
    }

    /// Reads that wait for an answer.
    pub(crate) fn waiting(&self) -> usize {
        self.plan.lock().waiting.len()
    }

    fn answer(&self, read: &Read, result: Result<(), io::ErrorKind>) {
        if let Err(error) = self.listener.answer(read, result) {
            tracing::error!(%error, "a reader could not be answered");
        }
    }

    /// Starts all fetches that are due and answers all readers that can be.
    pub(crate) fn pump(self: &Arc<Self>) {
        let now = self.now_ms();
        let mut answers = Vec::new();
        {
            let mut plan = self.plan.lock();
            while let Some(ready) = plan.planner.next_ready() {
                answers.extend(plan.settle(now, ready));
            }
            while let Some(fetch) = plan.planner.next_fetch(now) {
                let engine = Arc::clone(self);
                drop(self.runtime.spawn(async move { engine.fetch(fetch).await }));
            }
        }
        for (read, result) in answers {
            self.answer(&read, result);
        }
        self.clock.notify_one();
    }

    /// Calls the planner back when a retry or a deadline is due. Runs for ever.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        loop {
            let due = self.plan.lock().planner.next_timeout();
            let changed = self.clock.notified();
            match due {
                None => changed.await,
                Some(due) => {
                    let wait = Duration::from_millis(due.saturating_sub(self.now_ms()));
                    tokio::select! {
                        () = changed => continue,
                        () = tokio::time::sleep(wait) => {}
                    }
                    let now = self.now_ms();
                    self.plan.lock().planner.timeout(now);
                    self.pump();
                }
            }
        }
    }
}

impl Engine {
    /// Carries out a fetch, fills, and reports.
    async fn fetch(self: Arc<Self>, fetch: Fetch) {
        let outcome = match self.served(fetch.device) {
            None => Err(Failure::Device),
            Some(served) => match served.read(fetch.range.clone()).await {
                Err(failure) => Err(failure),
                Ok(stored) => {
                    let (extents, start) = (fetch.extents.clone(), fetch.range.start);
                    let filling = Arc::clone(&served);
                    let engine = Arc::clone(&self);
                    let filled = tokio::task::spawn_blocking(move || {
                        let unfilled = fill(
                            &filling.device(),
                            &filling.map,
                            extents.clone(),
                            start,
                            &stored,
                        );
                        filling.note(&extents, &unfilled);
                        engine.unmark_if_complete(&filling);
                        unfilled
                    });
                    match filled.await {
                        Ok(unfilled) => Ok(unfilled
                            .iter()
                            .map(|one| (one.extent, one.failure))
                            .collect()),
                        Err(_) => Err(Failure::Device),
                    }
                }
            },
        };
        let now = self.now_ms();
        self.plan.lock().planner.fetched(now, fetch.id, outcome);
        self.pump();
    }

    /// A device that has everything raises no events any more: reads cost what a local image's cost.
    /// Once it is durable, that is: nothing could be filled again if the disk then lost a block.
    pub(crate) fn unmark_if_complete(&self, served: &Served) {
        if !served.is_complete() {
            return;
        }
        let device = served.device();
        if let Err(error) = device.sync() {
            tracing::error!(%error, blob = %served.blob, "a complete device is not durable");
            return;
        }
        if !served.marked.swap(false, Ordering::AcqRel) {
            return;
        }
        match self.listener.unmark(&device.as_fd()) {
            Ok(()) => tracing::info!(blob = %served.blob, "a device is complete"),
            Err(error) => {
                served.marked.store(true, Ordering::Release);
                tracing::warn!(%error, "a complete device stays marked");
            }
        }
    }

    /// Makes everything that was filled durable.
    pub(crate) fn sync(&self) {
        for served in self.all() {
            if let Err(error) = served.device().sync() {
                tracing::error!(%error, blob = %served.blob, "a device could not be made durable");
            }
            // A worker that died may have left a complete one marked.
            if served.marked.load(Ordering::Acquire) {
                self.unmark_if_complete(&served);
            }
        }
    }
}

impl Served {
    pub(crate) fn new(
        id: DeviceId,
        device: Arc<Device>,
        map: Arc<DeviceMap>,
        blob: Digest,
    ) -> Self {
        Self {
            id,
            inode: device.inode(),
            missing: AtomicUsize::new(count_missing(&device, &map)),
            device: RwLock::new(device),
            map,
            blob,
            sources: RwLock::default(),
            marked: AtomicBool::new(true),
            stats: Stats::default(),
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
        let missing = count_missing(&device, &self.map);
        let mut current = self.device.write();
        *current = device;
        self.missing.store(missing, Ordering::Release);
        drop(current);
        tracing::warn!(blob = %self.blob, missing, "a device whose disk failed is used again");
        Ok(())
    }

    /// One more source for it.
    pub(crate) fn add_source(&self, source: Arc<dyn Source>) {
        self.sources.write().push(source);
    }

    /// One source less.
    pub(crate) fn remove_source(&self, source: &Arc<dyn Source>) {
        let is_it =
            |one: &Arc<dyn Source>| std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(source));
        self.sources.write().retain(|one| !is_it(one));
    }

    /// Whether all chunks of a range are there. Blocks that no chunk of the image has don't count:
    /// nobody reads them.
    fn has(&self, range: &Range<u64>) -> bool {
        let device = self.device();
        device.is_present(range.clone())
            || self.map.covering(range).all(|extent| {
                let chunks = self
                    .map
                    .extent(extent)
                    .map(|extent| self.map.chunks_of(extent));
                chunks.into_iter().flatten().all(|chunk| {
                    let Range { start, end } = chunk.blocks();
                    let common = start.max(range.start)..end.min(range.end);
                    common.is_empty() || device.is_present(common)
                })
            })
    }

    /// Whether every chunk is there.
    pub(crate) fn is_complete(&self) -> bool {
        if self.missing.load(Ordering::Acquire) > 0 {
            return false;
        }
        // The count may be too low when a device was opened anew under a fill: only the store knows.
        let missing = count_missing(&self.device(), &self.map);
        self.missing.store(missing, Ordering::Release);
        missing == 0
    }

    /// Reads stored bytes of the blob from the first source that has them.
    async fn read(&self, range: Range<u64>) -> Result<Bytes, Failure> {
        let sources = self.sources.read().clone();
        let mut failure = Failure::Refused;
        for source in sources {
            match source.read_range(&self.blob, range.clone()).await {
                Ok(bytes) => {
                    let len = bytes.len() as u64;
                    self.stats.bytes_fetched.fetch_add(len, Ordering::Relaxed);
                    if self.stats.down.swap(false, Ordering::Relaxed) {
                        tracing::info!(blob = %self.blob, "the source is back");
                    }
                    return Ok(bytes);
                }
                Err(error) => {
                    failure = failure_of(&error);
                    let error = &error as &dyn std::error::Error;
                    if !self.stats.down.swap(true, Ordering::Relaxed) {
                        tracing::warn!(blob = %self.blob, ?range, error, "a fetch failed");
                    }
                    *self.stats.last_error.lock() = Some(error.to_string());
                }
            }
        }
        Err(failure)
    }

    /// Counts what was filled, and logs what could not be, each extent once.
    fn note(&self, extents: &Range<u32>, unfilled: &[Unfilled]) {
        let filled = extents.len().saturating_sub(unfilled.len());
        let fewer = |missing: usize| Some(missing.saturating_sub(filled));
        let _before = self
            .missing
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, fewer);
        let mut complained = self.stats.complained.lock();
        if unfilled.is_empty() {
            for extent in extents.clone() {
                complained.remove(&extent);
            }
            return;
        }
        for one in unfilled {
            if complained.insert(one.extent) {
                tracing::error!(blob = %self.blob, why = one.why, "a chunk is not shown: reads of it fail");
            }
            *self.stats.last_error.lock() = Some(format!("blob {}: {}", self.blob, one.why));
        }
    }

    /// The part of a device that a read is about: whole blocks, not beyond the end. A read whose size the
    /// kernel does not tell is about everything from its offset on that one readahead could want.
    fn clamp(&self, read: &Read) -> Range<u64> {
        let end = self.device.read().bytes();
        let count = if read.count == 0 {
            BLOCK_BYTES
        } else {
            read.count
        };
        let start = read.offset.min(end);
        start..read.offset.saturating_add(count).min(end)
    }
}

/// Extents of which the device does not have every chunk.
fn count_missing(device: &Device, map: &DeviceMap) -> usize {
    let present = |extent| {
        let mut chunks = map.chunks_of(extent).iter();
        chunks.all(|chunk| device.is_present(chunk.blocks()))
    };
    let extents = map.extents().iter();
    extents.filter(|extent| !present(extent)).count()
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
