//! What is mounted, and the images and devices that it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use draught_digest::Digest;
use draught_fill::{DeviceId, FeedId, ImageId};
use draught_importer::Opened;
use draught_mount::{Detached, MountInfo, mountinfo};
use draught_source::Source;
use draught_store::DeviceKey;
use draught_sys::resident::Resident;
use draught_tree::ChunkId;
use parking_lot::Mutex;

use crate::attach::{AttachError, Attaching, Kept, keep, resolve};
use crate::catalog::{Catalog, load};
use crate::control::{MountRequest, MountStatus};
use crate::error::MountError;
use crate::handover::Key;
use crate::image::{Feed, Image, ranges_of};
use crate::record::METADATA;
use crate::served::{Served, total};
use crate::sessions;
use crate::state::{MountRecord, State, now};
use crate::transport::Transport;
use crate::worker::Worker;

/// Metadata that is kept in memory, in bytes of all images together: that of some 250,000 files. The kernel
/// reads it block by block, each a wait for the disk once the page cache was given to others.
const RESIDENT_BYTES_MAX: usize = 32 << 20;
/// How long a stop waits for the kernel to let go of what was just unmounted: it may still be reading
/// ahead, or closing files in the background.
const LINGER_PATIENCE: Duration = Duration::from_secs(2);
/// How often it looks.
const LINGER_POLL: Duration = Duration::from_millis(10);
/// One live mount.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) record: MountRecord,
    /// None if it can't be served.
    pub(crate) image: Option<Arc<Image>>,
    /// What it brought to its image; goes with it, or its connections would stay.
    pub(crate) source: Option<Arc<dyn Source>>,
    /// Why it can't be served.
    pub(crate) problem: Option<String>,
    /// Who serves it, if not events.
    pub(crate) session: Option<sessions::Served>,
}

impl Live {
    /// Whether somebody uses it who does not reach it through the directory tree.
    fn is_in_use(&self) -> bool {
        if sessions::needs_its_devices(&self.record) {
            return is_in_use(&self.record);
        }
        self.session.as_ref().is_some_and(sessions::Served::is_live)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) live: Vec<Live>,
    /// Nothing is mounted any more: nobody would serve it.
    stopping: bool,
    /// Devices in use, and by how many images.
    pub(crate) devices: BTreeMap<Key, (Arc<Served>, usize)>,
    /// Images in use by their names in the store, and by how many mounts.
    pub(crate) images: BTreeMap<String, (Arc<Image>, usize)>,
}

/// See the module. Locks are taken in the order of the fields.
#[derive(Debug)]
pub(crate) struct Mounts {
    boot_id: String,
    pub(crate) attaching: Attaching,
    /// Held while anything is placed in the store or removed from it.
    pub(crate) catalog: Mutex<Catalog>,
    pub(crate) inner: Mutex<Inner>,
    /// Whether a collection left something that was in use.
    pub(crate) uncollected: AtomicBool,
    next_id: AtomicU32,
}

/// The mount of one of our images on a directory, as the kernel has it.
pub(crate) fn is_mounted(infos: &[MountInfo], record: &MountRecord) -> bool {
    infos.iter().any(|info| sessions::is_of(info, record))
}

/// Whether something else lies on top of what is mounted.
pub(crate) fn is_covered(infos: &[MountInfo], record: &MountRecord) -> bool {
    // What can't be asked for can't be unmounted either, and that says why.
    draught_mount::mount_id(&record.dir).is_ok_and(|id| {
        infos
            .iter()
            .any(|info| info.id == id && info.source != record.metadata)
    })
}

/// Whether somebody uses a mount that was taken out of the directory tree. One that can't be asked for is
/// taken for used: to let go of it would mean zeros if it were.
pub(crate) fn is_in_use(record: &MountRecord) -> bool {
    draught_mount::is_in_use(&record.metadata).unwrap_or_else(|error| {
        tracing::error!(%error, "can't tell whether a mount is in use");
        error.kind() != std::io::ErrorKind::NotFound
    })
}

/// Keeps an image's metadata in memory, if there is room.
fn keep_resident(worker: &Worker, inner: &Inner, image: &Image) {
    let others = inner
        .images
        .values()
        .map(|(image, _)| image.bytes_resident());
    let room = RESIDENT_BYTES_MAX.saturating_sub(others.sum());
    let path = worker.store.image_file(&image.name, METADATA);
    let resident = fs_err::File::open(path).and_then(|file| {
        let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        if bytes > room {
            return Ok(None);
        }
        Resident::new(file.file().as_fd(), bytes).map(Some)
    });
    match resident {
        Ok(resident) => image.keep_resident(resident),
        Err(error) => tracing::debug!(%error, "metadata may leave the memory"),
    }
}

impl Mounts {
    pub(crate) fn new(boot_id: String) -> Self {
        Self {
            boot_id,
            attaching: Attaching::default(),
            catalog: Mutex::default(),
            inner: Mutex::default(),
            uncollected: AtomicBool::new(false),
            next_id: AtomicU32::new(0),
        }
    }

    pub(crate) fn save(&self, worker: &Worker, inner: &Inner) -> Result<(), MountError> {
        let mut state = State::empty(self.boot_id.clone());
        state.mounts = inner.live.iter().map(|live| live.record.clone()).collect();
        state.save(&worker.layout).map_err(MountError::State)
    }

    fn next_id(&self) -> u32 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Attaches an image and mounts it on a directory. Blocks on the network.
    pub(crate) fn mount(
        &self,
        worker: &Arc<Worker>,
        request: MountRequest,
    ) -> Result<MountStatus, MountError> {
        let MountRequest { origin, dir, .. } = &request;
        let transport = worker.transports.choose(request.transport)?;
        if !dir.is_absolute() || !dir.is_dir() {
            let dir = dir.clone();
            return Err(MountError::NoDirectory { dir });
        }
        if let Some(done) = self.inner.lock().already(&request)? {
            return Ok(done);
        }
        let failed = |error| MountError::Attach {
            reference: origin.reference.clone(),
            source: Box::new(error),
        };
        let runtime = worker.engine.runtime();
        let asked = Instant::now();
        let resolved = runtime
            .block_on(resolve(&worker.sources, origin))
            .map_err(failed)?;
        // To connect and to ask, at least: each once there and back.
        let latency = asked.elapsed() / 2;
        self.attaching.alone(&resolved.digest, || {
            {
                let mut catalog = self.catalog.lock();
                if let Some(kept) = self.find(worker, &mut catalog, &resolved.digest) {
                    resolved.check_reach(&kept.record).map_err(failed)?;
                    let source = (resolved.source(), latency);
                    return self.place(worker, &mut catalog, &request, transport, kept, source);
                }
            }
            let opened = runtime
                .block_on(Box::pin(resolved.import()))
                .map_err(failed)?;
            let hot = worker.profiles.hot(origin, &resolved.digest, &opened.tree);
            let mut catalog = self.catalog.lock();
            let kept = self
                .keep_new(worker, &mut catalog, opened, &hot, &resolved.digest)
                .map_err(failed)?;
            let source = (resolved.source(), latency);
            self.place(worker, &mut catalog, &request, transport, kept, source)
        })
    }

    /// Places an image that the store does not have in it.
    pub(crate) fn keep_new(
        &self,
        worker: &Worker,
        catalog: &mut Catalog,
        opened: Opened,
        hot: &[ChunkId],
        digest: &Digest,
    ) -> Result<Kept, AttachError> {
        let name = catalog.new_name(&worker.store, digest);
        let known = worker.deduplicate.then_some(&worker.store);
        let kept = keep(&opened, hot, digest, name, &worker.store, known).inspect_err(|_| {
            // Devices that it had made already are nobody's.
            self.uncollected.store(true, Ordering::Relaxed);
        })?;
        // Large, and what is done next may wait.
        drop(opened);
        catalog.insert(&worker.store, &kept.name, &kept.record);
        Ok(kept)
    }

    /// The image with that manifest, if the store has all that it needs. One of which something is lost is
    /// removed.
    pub(crate) fn find(
        &self,
        worker: &Worker,
        catalog: &mut Catalog,
        digest: &Digest,
    ) -> Option<Kept> {
        for name in catalog.of_manifest(&worker.store, digest) {
            let error = match load(&worker.store, &name) {
                Ok(kept) => return Some(kept),
                Err(error) => error,
            };
            if self.inner.lock().images.contains_key(&name) {
                continue;
            }
            tracing::warn!(%error, image = name, "what is kept of an image can't be used: attaching it anew");
            if let Err(error) = catalog.remove(&worker.store, &name) {
                tracing::warn!(%error, image = name, "it can't be removed either");
            }
        }
        None
    }

    pub(crate) fn place(
        &self,
        worker: &Arc<Worker>,
        catalog: &mut Catalog,
        request: &MountRequest,
        transport: Transport,
        kept: Kept,
        (source, latency): (Arc<dyn Source>, Duration),
    ) -> Result<MountStatus, MountError> {
        // One at a time from here on: the order of open, mark and mount is what everything rests on.
        let mut inner = self.inner.lock();
        if inner.stopping {
            return Err(MountError::Stopping);
        }
        inner.notice_unmounted();
        // Somebody else may have been faster.
        if let Some(done) = inner.already(request)? {
            return Ok(done);
        }
        let name = kept.name.clone();
        catalog.used(&worker.store, &name, Some(&request.origin.reference));
        let image = self.acquire(worker, &mut inner, kept)?;
        let record = MountRecord {
            dir: request.dir.clone(),
            image: name.clone(),
            origin: request.origin.clone(),
            transport: transport.name().to_owned(),
            session: transport
                .has_session()
                .then(|| sessions::key_text(&sessions::new_key())),
            prefetch_all: request.prefetch_all,
            since: now(),
            metadata: worker.store.image_file(&name, METADATA),
            detached: false,
        };
        image.add_source(Arc::clone(&source));
        worker.engine.expect_latency(image.id, latency);
        inner.live.push(Live {
            record,
            image: Some(Arc::clone(&image)),
            source: Some(source),
            problem: None,
            session: None,
        });
        // Before it can be seen: a worker that dies in between finds it in the list.
        let saved = self.save(worker, &inner);
        let result = saved.and_then(|()| self.mount_last(worker, &mut inner));
        if result.is_err()
            && let Some(live) = inner.live.pop()
        {
            self.let_go(worker, &mut inner, live);
            if let Err(error) = self.save(worker, &inner) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a failed mount stays listed"
                );
            }
        }
        result
    }

    /// Marks the devices of the mount that was listed last, mounts it, and unmarks what is complete.
    fn mount_last(&self, worker: &Worker, inner: &mut Inner) -> Result<MountStatus, MountError> {
        let Some(live) = inner.live.last_mut() else {
            return Err(MountError::Crashed);
        };
        let Some(image) = &live.image else {
            return Err(MountError::Crashed);
        };
        if live.record.session.is_some() {
            live.session = Some(sessions::mount(worker, &live.record, image)?);
            image.read_ahead_as_usual();
            worker.prefetch(image, live.record.prefetch_all);
            return Ok(live.status());
        }
        let dir = live.record.dir.clone();
        let failed = |error| MountError::Mount {
            dir: dir.clone(),
            source: Box::new(error),
        };
        let listener = worker.engine.listener();
        // Complete ones too: a mount that opened a device unmarked can never be made to raise events.
        for served in &image.devices {
            served.mark(listener).map_err(MountError::Mark)?;
        }
        let paths = image.devices.iter();
        let paths: Vec<PathBuf> = paths
            .map(|served| served.device().path().to_path_buf())
            .collect();
        let detached = Detached::mount(&live.record.metadata, &paths).map_err(failed)?;
        image.read_far_ahead(detached.readahead());
        detached.attach(&dir).map_err(failed)?;
        for served in &image.devices {
            served.unmark_if_complete(listener);
        }
        image.read_ahead_as_usual();
        worker.prefetch(image, live.record.prefetch_all);
        Ok(live.status())
    }

    /// An image to use for one more mount.
    pub(crate) fn acquire(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        kept: Kept,
    ) -> Result<Arc<Image>, MountError> {
        if let Some((image, users)) = inner.images.get_mut(&kept.name) {
            *users += 1;
            return Ok(Arc::clone(image));
        }
        let mut devices = Vec::new();
        for device in &kept.record.devices {
            let key = device.key().map_err(MountError::Kept);
            match key.and_then(|key| self.acquire_device(worker, inner, key)) {
                Ok(served) => devices.push(served),
                Err(error) => {
                    self.release_devices(worker, inner, &devices);
                    return Err(error);
                }
            }
        }
        self.serve(worker, inner, kept, devices)
    }

    /// Serves an image whose devices are served.
    pub(crate) fn serve(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        kept: Kept,
        devices: Vec<Arc<Served>>,
    ) -> Result<Arc<Image>, MountError> {
        let Kept {
            name,
            record,
            feeds,
            touches,
        } = kept;
        let ranges = ranges_of(devices.len(), &feeds);
        let id = ImageId(self.next_id());
        let image = Image::new(id, name.clone(), record, devices, ranges, touches);
        let image = Arc::new(image);
        let mut served = Vec::new();
        for (index, (map, blob)) in feeds.into_iter().zip(&image.record.blobs).enumerate() {
            let Ok(digest) = blob.digest.parse() else {
                self.release_devices(worker, inner, &image.devices);
                return Err(MountError::Kept(std::io::ErrorKind::InvalidData.into()));
            };
            let id = FeedId(self.next_id());
            let of = Arc::clone(&image);
            let feed = Feed::new(id, index, digest, map, of);
            served.push(Arc::new(feed));
        }
        worker.engine.add_image(&image, served);
        keep_resident(worker, inner, &image);
        inner.images.insert(name, (Arc::clone(&image), 1));
        Ok(image)
    }

    /// A device to use for one more image.
    fn acquire_device(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        key: Key,
    ) -> Result<Arc<Served>, MountError> {
        if let Some((served, users)) = inner.devices.get_mut(&key) {
            *users += 1;
            return Ok(Arc::clone(served));
        }
        let device = worker
            .store
            .open_device(&DeviceKey(key))
            .map_err(MountError::Device)?;
        // Before it is marked: whoever writes through it must never wait for itself.
        worker
            .link
            .hold(key, device.as_fd())
            .map_err(MountError::Keeper)?;
        Ok(self.serve_device(worker, inner, key, device))
    }

    pub(crate) fn serve_device(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        key: Key,
        device: Arc<draught_store::Device>,
    ) -> Arc<Served> {
        let id = DeviceId(self.next_id());
        let served = worker.engine.add(Served::new(id, device));
        inner.devices.insert(key, (Arc::clone(&served), 1));
        served
    }

    /// Lets go of what a mount used. Nothing that could read through it may be left.
    fn let_go(&self, worker: &Worker, inner: &mut Inner, live: Live) {
        if let Some(key) = sessions::key_of(&live.record)
            && let Err(error) = worker.link.release(&key)
        {
            tracing::debug!(%error, "the keeper goes on holding a session");
        }
        drop(live.session);
        let Some(image) = live.image else { return };
        if let Some(source) = &live.source {
            image.remove_source(source);
        }
        let Some((_, users)) = inner.images.get_mut(&image.name) else {
            return;
        };
        *users -= 1;
        if *users > 0 {
            return;
        }
        inner.images.remove(&image.name);
        worker.engine.remove_image(&image);
        worker.keep_touches(&image);
        self.release_devices(worker, inner, &image.devices);
    }

    /// Lets go of devices of an image that is not served any more, or not yet.
    pub(crate) fn release_devices(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        devices: &[Arc<Served>],
    ) {
        let listener = worker.engine.listener();
        for served in devices {
            let key = served.device().key().0;
            let Some((_, users)) = inner.devices.get_mut(&key) else {
                continue;
            };
            *users -= 1;
            if *users > 0 {
                // What only the image that went lacked is nobody's want any more.
                served.unmark_if_complete(listener);
                continue;
            }
            inner.devices.remove(&key);
            served.unmark(listener);
            if let Err(error) = served.device().sync() {
                tracing::warn!(%error, "a device could not be made durable");
            }
            worker.engine.remove(served.id);
            worker.store.forget(&DeviceKey(key));
            if let Err(error) = worker.link.release(&key) {
                tracing::debug!(%error, "the keeper goes on holding a device");
            }
        }
    }

    /// Unmounts what is on a directory.
    pub(crate) fn umount(&self, worker: &Worker, dir: &Path) -> Result<(), MountError> {
        let (image, reference) = {
            let mut inner = self.inner.lock();
            let here = |live: &Live| live.record.dir == dir && !live.record.detached;
            let Some(index) = inner.live.iter().rposition(here) else {
                return Err(MountError::NotMounted {
                    dir: dir.to_path_buf(),
                });
            };
            let live = inner.live.get(index);
            let image = live.and_then(|live| live.image.clone());
            let reference = live.map(|live| live.record.origin.reference.clone());
            self.umount_index(worker, &mut inner, index)?;
            (image, reference.unwrap_or_default())
        };
        if let Some(image) = image {
            self.catalog.lock().used(&worker.store, &image.name, None);
            worker.keep_profile(&image, &reference);
        }
        Ok(())
    }

    fn umount_index(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        index: usize,
    ) -> Result<(), MountError> {
        let Some(live) = inner.live.get_mut(index) else {
            return Err(MountError::Crashed);
        };
        let dir = live.record.dir.clone();
        let infos = mountinfo().map_err(MountError::State)?;
        // Somebody else may have unmounted it already.
        if !live.record.detached && is_mounted(&infos, &live.record) {
            if is_covered(&infos, &live.record) {
                return Err(MountError::Covered { dir });
            }
            sessions::unmount(&live.record).map_err(|source| MountError::Busy { dir, source })?;
        }
        live.record.detached = true;
        self.collect(worker, inner);
        self.save(worker, inner)
    }

    /// Lets go of detached mounts that nobody uses any more.
    pub(crate) fn collect(&self, worker: &Worker, inner: &mut Inner) {
        let mut attached = BTreeSet::new();
        for live in inner.live.iter().filter(|live| !live.record.detached) {
            attached.insert(live.record.image.clone());
        }
        for live in inner.live.iter().filter(|live| live.record.detached) {
            if let Some(image) = &live.image
                && !attached.contains(&live.record.image)
            {
                // We have it open ourselves for that: it would be in use for ever.
                image.keep_resident(None);
            }
        }
        // Another mount of the same image holds the same devices: that one's end decides.
        let gone = |live: &Live| {
            let record = &live.record;
            let is_kept = attached.contains(&record.image) && live.session.is_none();
            record.detached && (is_kept || !live.is_in_use())
        };
        let all = std::mem::take(&mut inner.live);
        let (gone, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(gone);
        inner.live = kept;
        for live in gone {
            self.let_go(worker, inner, live);
        }
    }

    /// Opens devices anew whose disk failed.
    pub(crate) fn revive_devices(&self, worker: &Worker) {
        // Under the lock, so that none is let go of in between.
        let inner = self.inner.lock();
        for (served, _) in inner.devices.values() {
            if let Err(error) = served.revive(&worker.store) {
                let error = &error as &dyn std::error::Error;
                let device = served.device().key();
                tracing::error!(%device, error, "a device's disk fails still");
            }
        }
    }

    /// Looks whether mounts that lingered are gone, or others were unmounted by somebody else.
    pub(crate) fn collect_detached(&self, worker: &Worker) {
        let mut inner = self.inner.lock();
        inner.notice_unmounted();
        if !inner.live.iter().any(|live| live.record.detached) {
            return;
        }
        self.collect(worker, &mut inner);
        if let Err(error) = self.save(worker, &inner) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the list of mounts is old"
            );
        }
    }

    /// Unmounts everything, and mounts nothing any more if that works.
    pub(crate) fn umount_all(&self, worker: &Worker) -> Result<(), MountError> {
        let mut inner = self.inner.lock();
        self.umount_all_of(worker, &mut inner)?;
        // Decided while nobody can mount: what came in after would be without a daemon, and show zeros.
        inner.stopping = true;
        Ok(())
    }

    fn umount_all_of(&self, worker: &Worker, inner: &mut Inner) -> Result<(), MountError> {
        while let Some(index) = inner.live.iter().rposition(|live| !live.record.detached) {
            self.umount_index(worker, inner, index)?;
        }
        let deadline = Instant::now() + LINGER_PATIENCE;
        loop {
            self.collect(worker, inner);
            let Some(live) = inner.live.first() else {
                return Ok(());
            };
            if Instant::now() > deadline {
                return Err(MountError::Lingering {
                    dir: live.record.dir.clone(),
                    reference: live.record.origin.reference.clone(),
                });
            }
            std::thread::sleep(LINGER_POLL);
        }
    }

    /// Whether something is mounted on a directory, and served.
    pub(crate) fn is_served(&self, dir: &Path) -> bool {
        let mut inner = self.inner.lock();
        inner.notice_unmounted();
        let mut here = inner.live.iter().filter(|live| live.record.dir == dir);
        here.any(|live| !live.record.detached && live.image.is_some() && live.problem.is_none())
    }

    /// Bytes that are there of one blob of the image on a directory, in whole blocks.
    pub(crate) fn blob_bytes_present(
        &self,
        worker: &Worker,
        dir: &Path,
        blob: &Digest,
    ) -> Option<u64> {
        let image = {
            let inner = self.inner.lock();
            let live = inner.live.iter().find(|live| live.record.dir == dir)?;
            live.image.clone()?
        };
        let mut bytes = 0;
        for feed in worker.engine.feeds_of(image.id) {
            if feed.blob != *blob {
                continue;
            }
            for (served, ranges) in image
                .devices
                .iter()
                .zip(ranges_of(image.devices.len(), &[Arc::clone(&feed.map)]))
            {
                let device = served.device();
                for range in ranges.iter() {
                    let missing = total(&device.missing(range.clone()));
                    bytes += range.end - range.start - missing;
                }
            }
        }
        Some(bytes)
    }

    /// What is mounted.
    pub(crate) fn status(&self, worker: &Worker) -> Vec<MountStatus> {
        self.collect_detached(worker);
        self.inner.lock().live.iter().map(Live::status).collect()
    }
}

impl Inner {
    /// A command whose worker died may come again: what it asked for may be done.
    fn already(&self, request: &MountRequest) -> Result<Option<MountStatus>, MountError> {
        let MountRequest { origin, dir, .. } = request;
        let here = |live: &&Live| live.record.dir == *dir && !live.record.detached;
        let Some(live) = self.live.iter().find(here) else {
            return Ok(None);
        };
        let infos = mountinfo().map_err(MountError::State)?;
        if !is_mounted(&infos, &live.record) {
            return Ok(None);
        }
        let reference = live.record.origin.reference.clone();
        if reference == origin.reference {
            return Ok(Some(live.status()));
        }
        let dir = dir.clone();
        Err(MountError::Occupied { dir, reference })
    }

    /// Notes which mounts somebody else has taken out of the directory tree.
    fn notice_unmounted(&mut self) {
        // If it can't be asked for, all stay what they were.
        let Ok(infos) = mountinfo() else { return };
        for live in &mut self.live {
            live.record.detached |= !is_mounted(&infos, &live.record);
        }
    }
}

impl Live {
    pub(crate) fn status(&self) -> MountStatus {
        let mut status = MountStatus {
            reference: self.record.origin.reference.clone(),
            digest: String::new(),
            dir: self.record.dir.clone(),
            transport: self.record.transport.clone(),
            detached: self.record.detached,
            lazy: false,
            why: self.problem.clone(),
            prefetch_all: self.record.prefetch_all,
            bytes_total: 0,
            bytes_present: 0,
            bytes_shared: 0,
            bytes_fetched: 0,
            requests: 0,
            faults: 0,
            fault_median_us: 0,
            fault_p99_us: 0,
            last_error: self.problem.clone(),
            sources: Vec::new(),
        };
        let Some(image) = &self.image else {
            return status;
        };
        status.digest.clone_from(&image.record.digest);
        let has_session = self.record.session.is_some();
        let incomplete = image.devices.iter().any(|served| !served.is_complete());
        let is_marked = image.devices.iter().any(|served| served.is_marked());
        status.lazy = if has_session { incomplete } else { is_marked };
        if !status.lazy && has_session {
            status.why = Some("everything is on this node".to_owned());
        } else if !status.lazy {
            status.why =
                Some("everything is on this node: the kernel reads it by itself".to_owned());
        } else if !incomplete {
            status.why = Some("everything is on this node, and about to be durable".to_owned());
        }
        status.prefetch_all |= image.fetches_all();
        let stats = &image.stats;
        status.bytes_total = image.bytes_total();
        status.bytes_present = image.bytes_present();
        status.bytes_shared = image.record.bytes_shared;
        status.bytes_fetched = stats.bytes_fetched.load(Ordering::Relaxed);
        status.requests = stats.requests.load(Ordering::Relaxed);
        status.faults = stats.faults.load(Ordering::Relaxed);
        status.fault_median_us = stats.latency.quantile_us(0.5);
        status.fault_p99_us = stats.latency.quantile_us(0.99);
        status.last_error = stats.last_error.lock().clone();
        status.sources = image.source_labels();
        status
    }
}
