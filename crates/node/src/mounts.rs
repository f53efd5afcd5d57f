//! What is mounted, and the devices that it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use draught_fill::DeviceId;
use draught_mount::{Detached, MountInfo, mountinfo};
use draught_source::Source;
use draught_store::{Device, DeviceKey};
use parking_lot::Mutex;

use crate::attach::{AttachError, Attached, attach};
use crate::control::MountStatus;
use crate::engine::Served;
use crate::handover::Key;
use crate::record::{ImageRecord, decode_map, map_file};
use crate::source::open_source;
use crate::state::{MountRecord, Origin, State};
use crate::worker::Worker;

/// The metadata image among an image's files.
pub(crate) const METADATA: &str = "meta.erofs";
/// The record among an image's files.
pub(crate) const RECORD: &str = "image.json";
/// How far the kernel reads ahead, in KiB. Measured: 128, its default, makes events of 128 KiB and
/// twelve times as many as this, which makes them of 4 MiB at most.
const READAHEAD_KIB: u32 = 2048;
/// How long a stop waits for the kernel to let go of what was just unmounted: it may still be reading
/// ahead, or closing files in the background.
const LINGER_PATIENCE: Duration = Duration::from_secs(2);
/// How often it looks.
const LINGER_POLL: Duration = Duration::from_millis(10);
/// The name of the only transport so far.
pub(crate) const FANOTIFY: &str = "fanotify";

/// Why something could not be mounted, unmounted, stopped or replaced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum MountError {
    #[error("failed to attach {reference}")]
    Attach {
        reference: String,
        source: Box<AttachError>,
    },
    #[error("{dir:?} is not an existing directory: make it first")]
    NoDirectory { dir: PathBuf },
    #[error("{reference} is mounted on {dir:?} already: unmount it first")]
    Occupied { dir: PathBuf, reference: String },
    #[error("something else is mounted on top of it on {dir:?}: unmount that first")]
    Covered { dir: PathBuf },
    #[error("the daemon is stopping: try again when it is gone")]
    Stopping,
    #[error("nothing of this daemon is mounted on {dir:?}")]
    NotMounted { dir: PathBuf },
    #[error("{dir:?} is in use: end what uses it first")]
    Busy {
        dir: PathBuf,
        source: Box<draught_mount::MountError>,
    },
    #[error(
        "{reference}, unmounted from {dir:?}, is still in use elsewhere, such as in a container"
    )]
    Lingering { dir: PathBuf, reference: String },
    #[error("failed to mount on {dir:?}")]
    Mount {
        dir: PathBuf,
        source: Box<draught_mount::MountError>,
    },
    #[error("failed to keep the image's metadata in the store")]
    Keep(#[source] io::Error),
    #[error("failed to open a device in the store")]
    Device(#[source] draught_store::DeviceError),
    #[error("failed to mark a device for events")]
    Mark(#[source] io::Error),
    #[error("failed to tell the keeper")]
    Keeper(#[source] io::Error),
    #[error("failed to save the list of mounts")]
    State(#[source] io::Error),
    #[error("failed to open the new program")]
    Executable(#[source] io::Error),
    #[error("failed to start a thread for this")]
    Thread(#[source] io::Error),
    #[error("the daemon failed inside: its log says more")]
    Crashed,
}

/// One live mount.
#[derive(Debug)]
struct Live {
    record: MountRecord,
    /// Digest of its manifest.
    digest: String,
    devices: Vec<Arc<Served>>,
    /// What it brought to its devices; goes with it, or its connections would stay.
    source: Option<Arc<dyn Source>>,
    /// Why not all of its devices can be served.
    problem: Option<String>,
}

#[derive(Debug, Default)]
struct Inner {
    live: Vec<Live>,
    /// Nothing is mounted any more: nobody would serve it.
    stopping: bool,
    /// Devices in use, and by how many mounts.
    devices: BTreeMap<Key, (Arc<Served>, usize)>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Mounts {
    boot_id: String,
    inner: Mutex<Inner>,
    next_device: AtomicU32,
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The mount of one of our images on a directory, as the kernel has it.
pub(crate) fn is_mounted(infos: &[MountInfo], record: &MountRecord) -> bool {
    infos.iter().any(|info| {
        info.target == record.dir && info.filesystem == "erofs" && info.source == record.metadata
    })
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
fn is_in_use(record: &MountRecord) -> bool {
    draught_mount::is_in_use(&record.metadata).unwrap_or_else(|error| {
        tracing::error!(%error, "can't tell whether a mount is in use");
        error.kind() != io::ErrorKind::NotFound
    })
}

impl Mounts {
    pub(crate) fn new(boot_id: String) -> Self {
        Self {
            boot_id,
            inner: Mutex::default(),
            next_device: AtomicU32::new(0),
        }
    }

    fn save(&self, worker: &Worker, inner: &Inner) -> Result<(), MountError> {
        let mut state = State::empty(self.boot_id.clone());
        state.mounts = inner.live.iter().map(|live| live.record.clone()).collect();
        state.save(&worker.layout).map_err(MountError::State)
    }

    /// Attaches an image and mounts it on a directory. Blocks on the network.
    pub(crate) fn mount(
        &self,
        worker: &Arc<Worker>,
        origin: Origin,
        dir: PathBuf,
    ) -> Result<MountStatus, MountError> {
        if !dir.is_absolute() || !dir.is_dir() {
            return Err(MountError::NoDirectory { dir });
        }
        if let Some(done) = self.inner.lock().already(&origin, &dir)? {
            return Ok(done);
        }
        let failed = |error| MountError::Attach {
            reference: origin.reference.clone(),
            source: Box::new(error),
        };
        let attached = worker
            .engine
            .runtime()
            .block_on(attach(&origin))
            .map_err(failed)?;
        self.place(worker, origin, &dir, &attached)
    }

    fn place(
        &self,
        worker: &Arc<Worker>,
        origin: Origin,
        dir: &Path,
        attached: &Attached,
    ) -> Result<MountStatus, MountError> {
        let image = attached.name();
        // One at a time from here on: the order of open, mark and mount is what everything rests on.
        let mut inner = self.inner.lock();
        if inner.stopping {
            return Err(MountError::Stopping);
        }
        inner.notice_unmounted();
        // Somebody else may have been faster.
        if let Some(done) = inner.already(&origin, dir)? {
            return Ok(done);
        }
        attached.keep(&worker.store).map_err(MountError::Keep)?;
        let devices = self.acquire_all(worker, &mut inner, &attached.devices)?;
        let record = MountRecord {
            dir: dir.to_path_buf(),
            image: image.clone(),
            origin,
            transport: FANOTIFY.to_owned(),
            since: now(),
            metadata: worker.store.image_dir(&image).join(METADATA),
            detached: false,
        };
        let live = Live {
            record,
            digest: attached.record.digest.clone(),
            devices,
            source: Some(Arc::clone(&attached.source)),
            problem: None,
        };
        for served in &live.devices {
            served.add_source(Arc::clone(&attached.source));
        }
        inner.live.push(live);
        // Before it can be seen: a worker that dies in between finds it in the list.
        let saved = self.save(worker, &inner);
        let result = saved.and_then(|()| self.mount_last(worker, &mut inner));
        if result.is_err()
            && let Some(live) = inner.live.pop()
        {
            live.take_source();
            self.release(worker, &mut inner, live.devices);
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
        let dir = live.record.dir.clone();
        let failed = |error| MountError::Mount {
            dir: dir.clone(),
            source: Box::new(error),
        };
        let listener = worker.engine.listener();
        // Complete ones too: a mount that opened a device unmarked can never be made to raise events.
        for served in &live.devices {
            served.marked.store(true, Ordering::Release);
            listener
                .mark(&served.device().as_fd())
                .map_err(MountError::Mark)?;
        }
        let paths: Vec<PathBuf> = live
            .devices
            .iter()
            .map(|served| served.device().path().to_path_buf())
            .collect();
        let detached = Detached::mount(&live.record.metadata, &paths).map_err(failed)?;
        if let Err(error) = detached.set_readahead(READAHEAD_KIB) {
            tracing::debug!(%error, "readahead stays what it was");
        }
        detached.attach(&dir).map_err(failed)?;
        for served in &live.devices {
            worker.engine.unmark_if_complete(served);
        }
        Ok(live.status())
    }

    /// The devices of one more mount; all of them, or none.
    fn acquire_all(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        prepared: &[crate::attach::Prepared],
    ) -> Result<Vec<Arc<Served>>, MountError> {
        let mut devices = Vec::new();
        for prepared in prepared {
            match self.acquire(worker, inner, prepared) {
                Ok(served) => devices.push(served),
                Err(error) => {
                    self.release(worker, inner, devices);
                    return Err(error);
                }
            }
        }
        Ok(devices)
    }

    /// A device to use for one more mount.
    fn acquire(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        prepared: &crate::attach::Prepared,
    ) -> Result<Arc<Served>, MountError> {
        let key = *prepared.key.as_bytes();
        if let Some((served, users)) = inner.devices.get_mut(&key) {
            *users += 1;
            return Ok(Arc::clone(served));
        }
        let device = worker
            .store
            .device(&DeviceKey(key), prepared.bytes())
            .map_err(MountError::Device)?;
        // Before it is marked: whoever writes through it must never wait for itself.
        worker
            .link
            .hold(key, device.as_fd())
            .map_err(MountError::Keeper)?;
        let map = Arc::clone(&prepared.map);
        Ok(self.serve(worker, inner, key, device, map, prepared.blob))
    }

    fn serve(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        key: Key,
        device: Arc<Device>,
        map: Arc<draught_fill::DeviceMap>,
        blob: draught_digest::Digest,
    ) -> Arc<Served> {
        let id = DeviceId(self.next_device.fetch_add(1, Ordering::Relaxed));
        let served = worker.engine.add(Served::new(id, device, map, blob));
        inner.devices.insert(key, (Arc::clone(&served), 1));
        served
    }

    /// Lets go of a mount's devices. Nothing that could read them may be left.
    fn release(&self, worker: &Worker, inner: &mut Inner, devices: Vec<Arc<Served>>) {
        for served in devices {
            let key = served.device().key().0;
            let Some((_, users)) = inner.devices.get_mut(&key) else {
                continue;
            };
            *users -= 1;
            if *users > 0 {
                continue;
            }
            inner.devices.remove(&key);
            if let Err(error) = worker.engine.listener().unmark(&served.device().as_fd()) {
                tracing::debug!(%error, "a device stays marked");
            }
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
        let mut inner = self.inner.lock();
        let here = |live: &Live| live.record.dir == dir && !live.record.detached;
        let Some(index) = inner.live.iter().rposition(here) else {
            return Err(MountError::NotMounted {
                dir: dir.to_path_buf(),
            });
        };
        self.umount_index(worker, &mut inner, index)
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
            draught_mount::unmount(&dir).map_err(|error| MountError::Busy {
                dir,
                source: Box::new(error),
            })?;
        }
        live.record.detached = true;
        self.collect(worker, inner);
        self.save(worker, inner)
    }

    /// Lets go of detached mounts that nobody uses any more.
    fn collect(&self, worker: &Worker, inner: &mut Inner) {
        let mut attached = BTreeSet::new();
        for live in inner.live.iter().filter(|live| !live.record.detached) {
            attached.insert(live.record.image.clone());
        }
        // Another mount of the same image holds the same devices: that one's end decides.
        let gone = |live: &Live| {
            let record = &live.record;
            record.detached && (attached.contains(&record.image) || !is_in_use(record))
        };
        let all = std::mem::take(&mut inner.live);
        let (gone, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(gone);
        inner.live = kept;
        for live in gone {
            live.take_source();
            self.release(worker, inner, live.devices);
        }
    }

    /// Opens devices anew whose disk failed.
    pub(crate) fn revive_devices(&self, worker: &Worker) {
        // Under the lock, so that none is let go of in between.
        let inner = self.inner.lock();
        for (served, _) in inner.devices.values() {
            if let Err(error) = served.revive(&worker.store) {
                let error = &error as &dyn std::error::Error;
                tracing::error!(blob = %served.blob, error, "a device's disk fails still");
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

    /// Takes up what the last worker served.
    pub(crate) fn restore(
        &self,
        worker: &Arc<Worker>,
        state: State,
        mut held: BTreeMap<Key, OwnedFd>,
    ) {
        let mut inner = self.inner.lock();
        let infos = mountinfo();
        let mut all_served = true;
        for mut record in state.mounts {
            // A mount that its worker did not live to make, or that somebody else took away.
            record.detached |= infos
                .as_ref()
                .is_ok_and(|infos| !is_mounted(infos, &record));
            let mut live = Live {
                record,
                digest: String::new(),
                devices: Vec::new(),
                source: None,
                problem: None,
            };
            if let Err(error) = self.restore_one(worker, &mut inner, &mut live, &mut held) {
                // It stays listed: it can be unmounted, and the next worker may be luckier.
                all_served = false;
                let dir = live.record.dir.display();
                let error = &error as &dyn std::error::Error;
                tracing::error!(%dir, error, "a mount can't be served: reads of what is missing fail");
                live.problem = Some(error.to_string());
            }
            inner.live.push(live);
        }
        self.collect(worker, &mut inner);
        if let Err(error) = self.save(worker, &inner) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the list of mounts is old");
        }
        drop(inner);
        // Devices of mounts that a worker did not live to list.
        for key in held.keys().filter(|_| all_served) {
            if let Err(error) = worker.link.release(key) {
                tracing::debug!(%error, "the keeper goes on holding a device");
            }
        }
    }

    fn restore_one(
        &self,
        worker: &Arc<Worker>,
        inner: &mut Inner,
        live: &mut Live,
        held: &mut BTreeMap<Key, OwnedFd>,
    ) -> Result<(), MountError> {
        let record = &live.record;
        let read = |name: &str| worker.store.read_image_file(&record.image, name);
        let image = read(RECORD).and_then(|bytes| ImageRecord::decode(&bytes));
        let image = image.map_err(MountError::Keep)?;
        let source = worker
            .engine
            .runtime()
            .block_on(open_source(&record.origin));
        live.digest = image.digest;
        for (index, device) in image.devices.iter().enumerate() {
            let torn = || MountError::Keep(io::Error::from(io::ErrorKind::InvalidData));
            let key = device.key().map_err(MountError::Keep)?;
            let served = if let Some((served, users)) = inner.devices.get_mut(&key) {
                *users += 1;
                Arc::clone(served)
            } else {
                let map = read(&map_file(index)).and_then(|bytes| decode_map(&bytes));
                let map = Arc::new(map.map_err(MountError::Keep)?);
                let fd = held.remove(&key).ok_or_else(torn)?;
                let blob = device.blob.parse().map_err(|_| torn())?;
                let device = worker
                    .store
                    .adopt(&DeviceKey(key), device.bytes, fd)
                    .map_err(MountError::Device)?;
                self.serve(worker, inner, key, device, map, blob)
            };
            match &source {
                Ok(source) => served.add_source(Arc::clone(source)),
                Err(error) => tracing::error!(
                    error = error as &dyn std::error::Error,
                    "a source can't be used: only what is present can be read"
                ),
            }
            live.devices.push(served);
        }
        live.source = source.ok();
        Ok(())
    }

    /// Mounts whose keeper and worker both died while they were live: they can't be served again, so
    /// they are taken away, and said so.
    pub(crate) fn refuse_orphans(&self, worker: &Worker, state: State) {
        let infos = mountinfo().unwrap_or_default();
        for record in state.mounts {
            tracing::error!(
                dir = %record.dir.display(),
                reference = record.origin.reference,
                "this mount lost keeper and worker: it is not handed out again, mount it anew"
            );
            if is_mounted(&infos, &record)
                && let Err(error) = draught_mount::detach(&record.dir)
            {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "it could not be detached"
                );
            }
            if is_in_use(&record)
                && let Err(error) = abandon_devices(worker, &record)
            {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "its devices could not be abandoned");
            }
        }
        if let Err(error) = self.save(worker, &self.inner.lock()) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the list of mounts is old"
            );
        }
    }

    /// What is mounted.
    pub(crate) fn status(&self, worker: &Worker) -> Vec<MountStatus> {
        self.collect_detached(worker);
        self.inner.lock().live.iter().map(Live::status).collect()
    }
}

/// Takes the devices of a mount that somebody still uses out of the store: the old filesystem goes on
/// with the old files, whose events nobody of this daemon sees, and new mounts get new ones.
fn abandon_devices(worker: &Worker, record: &MountRecord) -> Result<(), MountError> {
    let bytes = worker
        .store
        .read_image_file(&record.image, RECORD)
        .map_err(MountError::Keep)?;
    for device in ImageRecord::decode(&bytes)
        .map_err(MountError::Keep)?
        .devices
    {
        let key = device.key().map_err(MountError::Keep)?;
        worker
            .store
            .remove_device(&DeviceKey(key))
            .map_err(MountError::Device)?;
    }
    Ok(())
}

impl Inner {
    /// A command whose worker died may come again: what it asked for may be done.
    fn already(&self, origin: &Origin, dir: &Path) -> Result<Option<MountStatus>, MountError> {
        let here = |live: &&Live| live.record.dir == dir && !live.record.detached;
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
        let dir = dir.to_path_buf();
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
    /// Takes from its devices what it brought.
    fn take_source(&self) {
        for (served, source) in self.devices.iter().zip(self.source.iter().cycle()) {
            served.remove_source(source);
        }
    }

    fn status(&self) -> MountStatus {
        let mut status = MountStatus {
            reference: self.record.origin.reference.clone(),
            digest: self.digest.clone(),
            dir: self.record.dir.clone(),
            transport: self.record.transport.clone(),
            detached: self.record.detached,
            bytes_total: 0,
            bytes_present: 0,
            bytes_fetched: 0,
            faults: 0,
            last_error: self.problem.clone(),
        };
        for served in &self.devices {
            let chunks = served.map.chunks().iter();
            status.bytes_total += chunks
                .map(|chunk| chunk.blocks().end - chunk.blocks().start)
                .sum::<u64>();
            status.bytes_present += served.device().bytes_present();
            status.bytes_fetched += served.stats.bytes_fetched.load(Ordering::Relaxed);
            status.faults += served.stats.faults.load(Ordering::Relaxed);
            let last_error = served.stats.last_error.lock().clone();
            status.last_error = last_error.or(status.last_error);
        }
        status
    }
}
