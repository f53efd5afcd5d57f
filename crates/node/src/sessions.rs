//! Mounts that FUSE sessions serve.
//!
//! Each mount has a session of its own. The keeper holds its descriptor beside those of the devices, so that
//! readers wait when a worker dies and the next one goes on with it; if all are gone, readers get errors.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use draught_digest::Digest;
use draught_mount::fuse::{self, Files, FuseMount, FuseOptions, Session, Start};
use draught_mount::{Detached, MountInfo};

use crate::device_files::DeviceFiles;
use crate::error::MountError;
use crate::handover::Key;
use crate::image::Image;
use crate::image_files::ImageFiles;
use crate::paths::Metadata;
use crate::record::METADATA;
use crate::state::MountRecord;
use crate::transport::Transport;
use crate::worker::Worker;

/// Threads that take requests. They wait for no data: one is at work while another looks something up.
const THREADS: usize = 2;
/// How far the kernel reads ahead in what is served by FUSE, in KiB: the largest request that it makes.
const READAHEAD_KIB: u32 = 1024;
/// How long an unmounted filesystem is given to end before it is taken for one in use.
const END_PATIENCE: Duration = Duration::from_millis(100);
/// The type that the mount table shows: `fuse.draught`.
const SUBTYPE: &str = "draught";

/// The session of a mount.
#[derive(Debug)]
pub(crate) struct Served(Session);

impl Served {
    /// Whether the filesystem is still there.
    pub(crate) fn is_live(&self) -> bool {
        self.0.wait_for(END_PATIENCE).is_none()
    }
}

/// A key that no other mount has or had.
pub(crate) fn new_key() -> Key {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanos = time.map_or(0, |time| time.as_nanos());
    let unique = format!("session {} {nanos} {count}", std::process::id());
    *Digest::sha256(unique.as_bytes()).as_bytes()
}

/// A key as the list of mounts has it, and back.
pub(crate) fn key_text(key: &Key) -> String {
    draught_store::DeviceKey(*key).hex()
}

pub(crate) fn key_of(record: &MountRecord) -> Option<Key> {
    let text = record.session.as_ref()?;
    let digest: Digest = format!("sha256:{text}").parse().ok()?;
    Some(*digest.as_bytes())
}

fn transport(record: &MountRecord) -> Transport {
    Transport::named(&record.transport).unwrap_or(Transport::Fanotify)
}

/// What the session of a mount serves.
fn files(
    worker: &Worker,
    record: &MountRecord,
    image: &Image,
) -> Result<Arc<dyn Files>, MountError> {
    let (engine, devices) = (Arc::clone(&worker.engine), image.devices.clone());
    if transport(record) == Transport::Fileio {
        return Ok(Arc::new(DeviceFiles::new(engine, devices)));
    }
    let tree = image.tree(|| {
        let metadata = worker.store.read_image_file(&image.name, METADATA);
        Metadata::read(&metadata.map_err(MountError::Kept)?).map_err(MountError::Metadata)
    })?;
    Ok(Arc::new(ImageFiles::new(engine, devices, tree)))
}

fn options(record: &MountRecord) -> FuseOptions {
    let is_data = transport(record) == Transport::Fileio;
    FuseOptions {
        // By which a mount is known again, as one of EROFS is by its image.
        source: record.metadata.to_string_lossy().into_owned(),
        subtype: SUBTYPE.to_owned(),
        allow_other: !is_data && rustix::process::geteuid().is_root(),
        is_data_only: is_data,
        ..FuseOptions::default()
    }
}

/// Mounts an image whose mount is listed, with the session's key in its record.
pub(crate) fn mount(
    worker: &Worker,
    record: &MountRecord,
    image: &Image,
) -> Result<Served, MountError> {
    let failed = |source| MountError::Fuse {
        dir: record.dir.clone(),
        source: Box::new(source),
    };
    let key = key_of(record).ok_or(MountError::Crashed)?;
    let files = files(worker, record, image)?;
    let start = |device: OwnedFd| {
        worker
            .link
            .hold(key, device.as_fd())
            .map_err(MountError::Keeper)?;
        Session::start(device, files, Start::New, THREADS).map_err(MountError::Session)
    };
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        // Attached before it is served: there is no other way for an ordinary user.
        let device = fuse::mount(&record.dir, &options(record)).map_err(failed)?;
        let session = start(device).inspect_err(|_| take_away(record))?;
        return Ok(Served(session));
    }
    let (mount, device) = FuseMount::detached(&options(record)).map_err(failed)?;
    let session = start(device)?;
    if let Err(error) = fuse::set_readahead(mount.as_fd(), READAHEAD_KIB) {
        tracing::debug!(%error, "readahead stays what it was");
    }
    if transport(record) == Transport::Fuse {
        mount.attach(&record.dir).map_err(failed)?;
    } else {
        over_devices(record, image, &mount)?;
    }
    Ok(Served(session))
}

/// Mounts the kernel's EROFS over exported devices. They stay open in it when the export is let go of.
fn over_devices(record: &MountRecord, image: &Image, mount: &FuseMount) -> Result<(), MountError> {
    let exported = PathBuf::from(format!("/proc/self/fd/{}", mount.as_fd().as_raw_fd()));
    let devices = (0..).zip(&image.devices);
    let paths = devices.map(|(index, served)| {
        let has_all = served.is_complete() && served.device().is_durable();
        // What is complete needs nobody between it and the kernel.
        if has_all {
            served.device().path().to_path_buf()
        } else {
            exported.join(DeviceFiles::name(index))
        }
    });
    let paths: Vec<PathBuf> = paths.collect();
    let failed = |source| MountError::Mount {
        dir: record.dir.clone(),
        source: Box::new(source),
    };
    let detached = Detached::mount(&record.metadata, &paths).map_err(failed)?;
    image.read_far_ahead(detached.readahead());
    detached.attach(&record.dir).map_err(failed)
}

/// Goes on with the session of a mount.
pub(crate) fn resume(
    worker: &Worker,
    record: &MountRecord,
    image: &Image,
    device: OwnedFd,
) -> Result<Served, MountError> {
    let files = files(worker, record, image)?;
    let session = Session::start(device, files, Start::Resumed, THREADS);
    let session = session.map_err(MountError::Session)?;
    Ok(Served(session))
}

/// Whether a line of the mount table is that of a mount.
pub(crate) fn is_of(info: &MountInfo, record: &MountRecord) -> bool {
    let filesystem = match transport(record) {
        Transport::Fuse => "fuse.draught",
        _ => "erofs",
    };
    info.target == record.dir && info.filesystem == filesystem && info.source == record.metadata
}

/// Unmounts; refused while it is in use.
pub(crate) fn unmount(
    record: &MountRecord,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    match transport(record) {
        Transport::Fuse => Ok(fuse::unmount(&record.dir, false)?),
        _ => Ok(draught_mount::unmount(&record.dir)?),
    }
}

/// Takes a mount out of the directory tree even if it is in use.
pub(crate) fn detach(record: &MountRecord) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    match transport(record) {
        Transport::Fuse => Ok(fuse::unmount(&record.dir, true)?),
        _ => Ok(draught_mount::detach(&record.dir)?),
    }
}

fn take_away(record: &MountRecord) {
    if let Err(error) = detach(record) {
        tracing::warn!(error, dir = %record.dir.display(), "a failed mount stays");
    }
}

/// Whether what a mount shows could turn into zeros if its devices were given to others: reads of one that
/// FUSE serves fail by themselves.
pub(crate) fn needs_its_devices(record: &MountRecord) -> bool {
    transport(record) != Transport::Fuse
}

/// The error of a device that the keeper does not hold.
pub(crate) fn not_held() -> MountError {
    MountError::Session(io::Error::new(
        io::ErrorKind::NotFound,
        "the keeper does not hold its descriptor",
    ))
}
