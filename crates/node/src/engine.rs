//! Fault → Fetch → Ready: the kernel's reads, the planner, the network and the store, joined.
//!
//! The planner decides and does nothing; everything that is done is done here. Whoever changes the
//! planner's state (a listener thread with a fault, a task with a fetch's outcome, the clock) then calls
//! [`Engine::pump`], which starts what is to be fetched and answers who is to be answered.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use draught_fill::{
    DeviceId, Failure, Fault, FeedId, Fetch, FetchId, ImageId, Outlook, Planner, Presence,
    Priority, Ready,
};
use draught_mount::{Listener, Read};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::fill::{Stored, fill};
use crate::image::{Feed, Fetched, Image, Waited};
use crate::served::Served;

/// Who waits for a range of a device, and how to tell.
pub(crate) enum Asker {
    /// A reader in the kernel.
    Event(Read),
    /// Somebody of this process.
    Call(Box<dyn FnOnce(Result<(), io::ErrorKind>) + Send>),
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(read) => f.debug_tuple("Event").field(read).finish(),
            Self::Call(_) => f.write_str("Call"),
        }
    }
}

/// A read that is waited for, in one device or, if nobody knows which, in all of them.
#[derive(Debug)]
struct Waiting {
    asker: Asker,
    offset: u64,
    count: u64,
    devices: Vec<Arc<Served>>,
    since: Instant,
    remaining: usize,
    failure: Option<io::ErrorKind>,
    /// Times that it was planned.
    plans: u32,
}

impl Waiting {
    /// Whether all of it is there. The store has the last word: it takes presence back when what was
    /// written turns out not to be on the disk.
    fn is_present(&self) -> bool {
        let mut devices = self.devices.iter();
        devices.all(|served| served.has(&served.clamp(self.offset, self.count)))
    }
}

/// Times that a read is planned because what was filled was lost again.
const PLANS_MAX: u32 = 3;
/// Extents that are noted to be fetched in the background without letting anybody else in.
const EXTENTS_AT_ONCE: u32 = 4096;
/// Touches that wait to be attributed. When a crowd of readers makes more in the meantime, the rest is not
/// recorded: a recording is a help and no more.
const TOUCHED_MAX: usize = 16 << 10;

/// The devices, as the planner asks about them.
#[derive(Debug, Clone, Default)]
struct Devices(Arc<RwLock<HashMap<DeviceId, Arc<Served>>>>);

impl Presence for Devices {
    fn is_present(&self, device: DeviceId, range: Range<u64>) -> bool {
        let devices = self.0.read();
        devices
            .get(&device)
            .is_some_and(|served| served.device().is_present(range))
    }
}

#[derive(Debug)]
struct Plan {
    planner: Planner<Devices>,
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
            let fault = Fault {
                device: served.id,
                range: served.clamp(waiting.offset, waiting.count),
                token,
            };
            self.planner.fault(now_ms, fault);
        }
        self.waiting.insert(id, waiting);
    }

    /// Takes an answer of the planner; gives the read that it was the last for.
    fn settle(
        &mut self,
        now_ms: u64,
        ready: Ready,
    ) -> Option<(Waiting, Result<(), io::ErrorKind>)> {
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
            return Some((waiting, Err(failure)));
        }
        if waiting.is_present() {
            return Some((waiting, Ok(())));
        }
        if waiting.plans >= PLANS_MAX {
            return Some((waiting, Err(io::ErrorKind::Other)));
        }
        // The disk failed under what had just been filled.
        self.wait(now_ms, waiting);
        None
    }
}

/// A touch of a device that no image was told of yet.
#[derive(Debug)]
struct Touched {
    device: DeviceId,
    range: Range<u64>,
    at: Instant,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine {
    listener: Listener,
    runtime: tokio::runtime::Handle,
    epoch: Instant,
    plan: Mutex<Plan>,
    by_inode: RwLock<HashMap<u64, Arc<Served>>>,
    devices: Devices,
    feeds: RwLock<HashMap<FeedId, Arc<Feed>>>,
    images: RwLock<HashMap<ImageId, Arc<Image>>>,
    touched: Mutex<Vec<Touched>>,
    /// Reads that the kernel asked us about, whether anything was missing or not.
    events: AtomicU64,
    clock: Notify,
}

impl Engine {
    pub(crate) fn new(
        listener: Listener,
        runtime: tokio::runtime::Handle,
        settings: draught_fill::Settings,
    ) -> Arc<Self> {
        let devices = Devices::default();
        let plan = Plan {
            planner: Planner::new(settings, devices.clone()),
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
            devices,
            feeds: RwLock::default(),
            images: RwLock::default(),
            touched: Mutex::default(),
            events: AtomicU64::new(0),
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
        self.devices
            .0
            .write()
            .insert(served.id, Arc::clone(&served));
        self.by_inode
            .write()
            .insert(served.inode, Arc::clone(&served));
        served
    }

    /// Serves a device no longer; nothing that could raise events may refer to it any more.
    pub(crate) fn remove(&self, id: DeviceId) {
        if let Some(served) = self.devices.0.write().remove(&id) {
            self.by_inode.write().remove(&served.inode);
        }
    }

    /// Serves an image from now on: its devices, which are served already, can be filled from its blobs.
    pub(crate) fn add_image(&self, image: &Arc<Image>, feeds: Vec<Arc<Feed>>) {
        // What was read until now was read through others.
        self.attribute_touches();
        for (served, ranges) in image.devices.iter().zip(&image.ranges) {
            served.add_user(image.id, Arc::clone(ranges));
        }
        self.images.write().insert(image.id, Arc::clone(image));
        let devices: Arc<[DeviceId]> = image.devices.iter().map(|served| served.id).collect();
        for feed in feeds {
            let planned = draught_fill::Feed {
                map: Arc::clone(&feed.map),
                devices: Arc::clone(&devices),
                // An image is read from one place, as far as concurrency and patience are concerned: what
                // its registry says to one of its blobs holds for all.
                source: draught_fill::SourceId(image.id.0),
                image: image.id,
            };
            let id = feed.id;
            self.feeds.write().insert(id, feed);
            self.plan.lock().planner.add_feed(id, planned);
        }
    }

    /// Bytes per millisecond that come from an image's registry, if that was seen.
    fn rate_of(&self, image: ImageId) -> Option<u64> {
        let source = draught_fill::SourceId(image.0);
        self.plan.lock().planner.rate(source)
    }

    /// An image's registry takes about so long to answer.
    pub(crate) fn expect_latency(&self, image: ImageId, latency: Duration) {
        let source = draught_fill::SourceId(image.0);
        let mut plan = self.plan.lock();
        plan.planner.expect_latency(source, millis(latency));
    }

    /// Serves an image no longer; nobody may be able to read through it any more. What its devices lack is
    /// for the images that are left.
    pub(crate) fn remove_image(self: &Arc<Self>, image: &Image) {
        let feeds: Vec<FeedId> = self.feeds_of(image.id).iter().map(|feed| feed.id).collect();
        for feed in feeds {
            let now = self.now_ms();
            self.plan.lock().planner.remove_feed(now, feed);
            self.feeds.write().remove(&feed);
        }
        self.attribute_touches();
        self.images.write().remove(&image.id);
        for served in &image.devices {
            served.remove_user(image.id);
        }
        // Readers that were killed while they waited are forgotten now, and not at the next read.
        self.pump();
    }

    /// The feeds of an image, in order.
    pub(crate) fn feeds_of(&self, image: ImageId) -> Vec<Arc<Feed>> {
        let feeds = self.feeds.read();
        let of_image = feeds.values().filter(|feed| feed.image.id == image);
        let mut of_image: Vec<_> = of_image.cloned().collect();
        of_image.sort_unstable_by_key(|feed| feed.index);
        of_image
    }

    pub(crate) fn all(&self) -> Vec<Arc<Served>> {
        self.devices.0.read().values().cloned().collect()
    }

    pub(crate) fn images(&self) -> Vec<Arc<Image>> {
        self.images.read().values().cloned().collect()
    }

    /// Wants extents that nobody waits for yet, in that order.
    pub(crate) fn prefetch(
        self: &Arc<Self>,
        wanted: impl IntoIterator<Item = (FeedId, u32)>,
        priority: Priority,
    ) {
        {
            let mut plan = self.plan.lock();
            for (feed, extent) in wanted {
                plan.planner.prefetch(feed, [extent], priority);
            }
        }
        self.pump();
    }

    /// Wants everything of an image, when there is nothing better to do. Returns at once: readers are not to wait until
    /// a million extents are noted.
    pub(crate) fn prefetch_all(self: &Arc<Self>, image: ImageId) {
        let engine = Arc::clone(self);
        drop(self.runtime.spawn_blocking(move || {
            for feed in engine.feeds_of(image) {
                let count = u32::try_from(feed.map.extents().len()).unwrap_or(u32::MAX);
                let mut rest = 0..count;
                while !rest.is_empty() {
                    let end = rest.start.saturating_add(EXTENTS_AT_ONCE).min(count);
                    let extents = (rest.start..end).map(|extent| (feed.id, extent));
                    engine.prefetch(extents, Priority::Background);
                    rest.start = end;
                }
            }
        }));
    }

    /// What the planner has to do, in numbers.
    pub(crate) fn outlook(&self) -> Outlook {
        self.plan.lock().planner.outlook()
    }

    /// Takes reads from the kernel and answers or plans them.
    pub(crate) fn on_reads(self: &Arc<Self>, reads: Vec<Read>) {
        let mut planned = false;
        self.events.fetch_add(reads.len() as u64, Ordering::Relaxed);
        for read in reads {
            planned |= self.on_read(read);
        }
        if planned {
            self.pump();
        }
    }

    /// Whether the planner has it now.
    fn on_read(&self, read: Read) -> bool {
        let (offset, count) = (read.offset, read.count);
        let Some(inode) = read.inode else {
            // A worker died between taking this event and asking which file it is about. Whichever it
            // is: when the range is there in all of them, it is there in that one.
            tracing::warn!(offset, count, "filling for an unknown device");
            let all = self.all();
            self.plan_faults(Asker::Event(read), offset, count, all);
            return true;
        };
        let Some(served) = self.by_inode.read().get(&inode).cloned() else {
            tracing::error!(inode, "a read of a device that no attached image has");
            self.answer(Asker::Event(read), Err(io::ErrorKind::NotFound));
            return false;
        };
        self.on_range(served, offset, count, Asker::Event(read))
    }

    /// Tells `asker` when a range of a device is there, or why it can't be.
    pub(crate) fn ask(
        self: &Arc<Self>,
        served: Arc<Served>,
        offset: u64,
        count: u64,
        asker: Asker,
    ) {
        if self.on_range(served, offset, count, asker) {
            self.pump();
        }
    }

    /// Whether the planner has it now.
    fn on_range(&self, served: Arc<Served>, offset: u64, count: u64, asker: Asker) -> bool {
        let range = served.clamp(offset, count);
        let is_there = served.has(&range);
        self.note_touch(&served, range.clone());
        if is_there {
            self.answer(asker, Ok(()));
            return self.plan.lock().planner.touched(served.id, &range);
        }
        self.plan_faults(asker, offset, count, vec![served]);
        true
    }

    fn note_touch(&self, served: &Served, range: Range<u64>) {
        let mut touched = self.touched.lock();
        if touched.len() < TOUCHED_MAX {
            touched.push(Touched {
                device: served.id,
                range,
                at: Instant::now(),
            });
        }
    }

    /// Tells images what of them was touched. Which image a read of a shared device came through is not
    /// known: the one that was mounted last is the one that is starting.
    pub(crate) fn attribute_touches(&self) {
        let touched = std::mem::take(&mut *self.touched.lock());
        for Touched { device, range, at } in touched {
            let served = self.devices.0.read().get(&device).cloned();
            let Some(served) = served else { continue };
            let image = served.users_of(&range).into_iter().next();
            let image = image.and_then(|image| self.images.read().get(&image).cloned());
            if let Some(image) = image {
                let since = at.saturating_duration_since(image.since).as_millis();
                image.touched(&served, &range, u64::try_from(since).unwrap_or(u64::MAX));
            }
        }
    }

    fn plan_faults(&self, asker: Asker, offset: u64, count: u64, devices: Vec<Arc<Served>>) {
        if devices.is_empty() {
            self.answer(asker, Err(io::ErrorKind::NotFound));
            return;
        }
        let waiting = Waiting {
            asker,
            offset,
            count,
            devices,
            since: Instant::now(),
            remaining: 0,
            failure: None,
            plans: 0,
        };
        self.plan.lock().wait(self.now_ms(), waiting);
    }

    /// Reads that the kernel asked us about so far.
    pub(crate) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Reads that wait for an answer.
    pub(crate) fn waiting(&self) -> usize {
        self.plan.lock().waiting.len()
    }

    fn answer(&self, asker: Asker, result: Result<(), io::ErrorKind>) {
        match asker {
            Asker::Event(read) => {
                if let Err(error) = self.listener.answer(&read, result) {
                    tracing::error!(%error, "a reader could not be answered");
                }
            }
            Asker::Call(call) => call(result),
        }
    }

    /// Answers a read that waited, and notes how long it did.
    fn finish(self: &Arc<Self>, waiting: Waiting, result: Result<(), io::ErrorKind>) {
        let waited = waiting.since.elapsed();
        let ok = result.is_ok();
        let Waiting {
            asker,
            offset,
            count,
            devices,
            since,
            ..
        } = waiting;
        self.answer(asker, result);
        for served in devices {
            let range = served.clamp(offset, count);
            let image = served.users_of(&range).into_iter().next();
            let image = image.and_then(|image| self.images.read().get(&image).cloned());
            let Some(image) = image else { continue };
            image.stats.faults.fetch_add(1, Ordering::Relaxed);
            image
                .stats
                .faults_failed
                .fetch_add(u64::from(!ok), Ordering::Relaxed);
            image.stats.latency.add(waited);
            if ok && image.is_out_of_patience(since, || self.rate_of(image.id)) {
                let (digest, bytes) = (&image.record.digest, image.bytes_total());
                tracing::info!(
                    image = digest,
                    bytes,
                    "reads of it wait so long that all of it is fetched"
                );
                self.prefetch_all(image.id);
            }
            image.log.lock().waited(Waited {
                at_ms: millis(since.saturating_duration_since(image.since)),
                waited_us: u64::try_from(waited.as_micros()).unwrap_or(u64::MAX),
                device: served.id,
                start: range.start,
                end: range.end,
                ok,
            });
        }
    }

    /// Starts all fetches that are due and answers all readers that can be.
    pub(crate) fn pump(self: &Arc<Self>) {
        let now = self.now_ms();
        let mut answers = Vec::new();
        {
            let mut plan = self.plan.lock();
            loop {
                while let Some(fetch) = plan.planner.next_fetch(now) {
                    let engine = Arc::clone(self);
                    drop(self.runtime.spawn(async move { engine.fetch(fetch).await }));
                }
                let Some(ready) = plan.planner.next_ready() else {
                    break;
                };
                answers.extend(plan.settle(now, ready));
            }
        }
        for (waiting, result) in answers {
            self.finish(waiting, result);
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

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Engine {
    /// Carries out a fetch, fills, and reports.
    async fn fetch(self: Arc<Self>, fetch: Fetch) {
        let feed = self.feeds.read().get(&fetch.feed).cloned();
        let outcome = match feed {
            None => Err(Failure::Device),
            Some(feed) => self.fetch_from(&feed, &fetch).await,
        };
        let now = self.now_ms();
        self.plan.lock().planner.fetched(now, fetch.id, outcome);
        self.pump();
    }

    async fn fetch_from(
        self: &Arc<Self>,
        feed: &Arc<Feed>,
        fetch: &Fetch,
    ) -> Result<Vec<(u32, Failure)>, Failure> {
        let image = &feed.image;
        let at_ms = image.age_ms();
        let stored = image.read(&feed.blob, fetch.range.clone()).await;
        image.log.lock().fetched(Fetched {
            at_ms,
            took_ms: image.age_ms().saturating_sub(at_ms),
            feed: u32::try_from(feed.index).unwrap_or(u32::MAX),
            start: fetch.range.start,
            bytes: fetch.range.end.saturating_sub(fetch.range.start),
            priority: fetch.priority,
            ok: stored.is_ok(),
        });
        let stored = stored?;
        let (engine, feed) = (Arc::clone(self), Arc::clone(feed));
        let (id, extents, start) = (fetch.id, fetch.extents.clone(), fetch.range.start);
        let filled = tokio::task::spawn_blocking(move || {
            let devices = feed.image.devices.iter().map(|served| served.device());
            let devices: Vec<_> = devices.collect();
            let stored = Stored {
                start,
                bytes: &stored,
            };
            let told = |extents| engine.filled(id, extents);
            let unfilled = fill(&devices, &feed.map, extents.clone(), stored, told);
            feed.note(&extents, &unfilled);
            if unfilled.is_empty() {
                engine.unmark_soon(&feed.image);
            }
            unfilled
        });
        let unfilled = filled.await.map_err(|_| Failure::Device)?;
        let failed = unfilled.iter().map(|one| (one.extent, one.failure));
        Ok(failed.collect())
    }

    /// Takes the marks of an image's complete devices away, in the background: they are made durable first,
    /// and who waits for a fetch must not wait for the disk.
    fn unmark_soon(self: &Arc<Self>, image: &Image) {
        let complete = image.devices.iter().filter(|served| served.is_due());
        for served in complete {
            let (engine, served) = (Arc::clone(self), Arc::clone(served));
            drop(self.runtime.spawn_blocking(move || {
                served.unmark_if_complete(&engine.listener);
                engine
                    .images()
                    .iter()
                    .for_each(|image| image.read_ahead_as_usual());
            }));
        }
    }

    /// Part of a fetch is on the devices: whoever waits for no more than that goes on.
    fn filled(self: &Arc<Self>, id: FetchId, extents: Range<u32>) {
        self.plan.lock().planner.filled(id, extents);
        self.pump();
    }

    /// Makes everything that was filled durable.
    pub(crate) fn sync(&self) {
        for served in self.all() {
            let device = served.device();
            if let Err(error) = device.sync() {
                tracing::error!(%error, device = %device.key(), "a device could not be made durable");
            }
            // A worker that died may have left a complete one marked.
            served.unmark_if_complete(&self.listener);
        }
    }
}
