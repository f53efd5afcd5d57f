//! What a service in the worker's process may do: keep images in the store and mount them, without a command.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use draught_digest::Digest;
use draught_importer::Part;
use draught_oci::Manifest;
use draught_source::Keychain;

use crate::attach::{AttachError, Kept, Resolved, resolve};
use crate::control::{LayerStatus, MountRequest, MountStatus};
use crate::error::MountError;
use crate::handover::Key;
use crate::layout::Layout;
use crate::link::Link;
use crate::looking::start_bytes;
use crate::patience::LINK_BYTES_PER_SECOND;
use crate::state::Origin;
use crate::worker::Worker;

/// What a wait for a source is taken to be until one was measured.
const LATENCY_UNKNOWN: Duration = Duration::from_millis(20);

/// Stored bytes of an image up to which all of it is fetched at once: what comes in half a second.
const WHOLE_BYTES_MAX: u64 = LINK_BYTES_PER_SECOND / 2;
/// Of an image, the part whose touch at a start makes all of it be fetched at once: a start that reads half of it is
/// faster with everything on its way than with one wait after the other.
const WHOLE_SHARE_DIVISOR: u64 = 2;

/// Why a service does not get what it asked for: the whole chain of reasons, the outermost first.
#[derive(Debug, thiserror::Error)]
#[error("{}", chain.join(": "))]
pub struct NodeError {
    /// The layer that is to blame, if it is the image's own content.
    pub layer: Option<Digest>,
    chain: Vec<String>,
}

impl From<MountError> for NodeError {
    fn from(error: MountError) -> Self {
        let layer = match &error {
            MountError::Attach { source, .. } => source.layer(),
            _ => None,
        };
        let chain = crate::worker::chain(&error);
        Self { layer, chain }
    }
}

/// An image whose manifest was fetched: whoever may do that may use the image.
#[derive(Debug, Clone)]
pub struct Fetched {
    resolved: Arc<Resolved>,
    origin: Origin,
    latency: Duration,
}

impl Fetched {
    /// The manifest, verified.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        self.resolved.manifest()
    }

    /// Its digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.resolved.digest
    }

    /// Where it comes from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

/// What of an image is one filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// All of it.
    Whole,
    /// Some layers, in parts that others lie between; see [`draught_importer::Import::of_parts`].
    Parts(Vec<Part>),
}

/// A service that runs in the worker.
pub trait Service: Send + Sync + std::fmt::Debug {
    /// Which layers it knows, and why those are not lazy that are not.
    fn layers(&self) -> Vec<LayerStatus>;

    /// Its numbers, as Prometheus reads them.
    fn metrics(&self) -> String;
}

/// A future of a service's start.
pub type Starting = Pin<Box<dyn Future<Output = io::Result<Arc<dyn Service>>> + Send>>;

/// Starts a service, on the worker's runtime, with the sockets that it listens on.
pub type Start = Box<dyn FnOnce(Node, Vec<OwnedFd>) -> Starting + Send>;

/// The node, for services. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Node(Arc<Worker>);

impl Node {
    pub(crate) fn new(worker: Arc<Worker>) -> Self {
        Self(worker)
    }

    /// Where things lie.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.0.layout
    }

    /// Where credentials are handed over, each for one image's repository.
    #[must_use]
    pub fn keychain(&self) -> &Arc<Keychain> {
        self.0.sources.keychain()
    }

    async fn does<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Worker>) -> Result<T, MountError> + Send + 'static,
    ) -> Result<T, NodeError> {
        let worker = Arc::clone(&self.0);
        let done = crate::worker::blocking(move || work(&worker)).await;
        done.map_err(NodeError::from)
    }

    /// Fetches an image's manifest.
    ///
    /// # Errors
    /// If the image can't be had.
    pub async fn fetch(&self, origin: Origin) -> Result<Fetched, NodeError> {
        let asked = Instant::now();
        let resolved = resolve(&self.0.sources, &origin).await;
        // To connect and to ask, at least: each once there and back.
        let latency = asked.elapsed() / 2;
        match resolved {
            Ok(resolved) => Ok(Fetched {
                resolved: Arc::new(resolved),
                origin,
                latency,
            }),
            Err(error) => Err(attach(&origin)(error).into()),
        }
    }

    /// Whether the store has all of an image's metadata that was kept under this digest.
    pub async fn is_kept(&self, digest: Digest) -> bool {
        let found = self.does(move |worker| {
            let mut catalog = worker.mounts.catalog.lock();
            Ok(worker.mounts.find(worker, &mut catalog, &digest).is_some())
        });
        found.await.unwrap_or(false)
    }

    /// Keeps an image's metadata in the store, under a digest that stands for exactly this content: the image's
    /// own, if it is whole.
    ///
    /// # Errors
    /// If the image can't be had, or can't be mounted like this; [`NodeError::layer`] then says because of which
    /// layer.
    pub async fn keep(
        &self,
        fetched: &Fetched,
        content: Content,
        digest: Digest,
    ) -> Result<(), NodeError> {
        let fetched = fetched.clone();
        self.does(move |worker| {
            worker.make_root_again();
            let Fetched {
                resolved, origin, ..
            } = &fetched;
            worker.mounts.attaching.alone(&digest, || {
                if worker
                    .mounts
                    .find(worker, &mut worker.mounts.catalog.lock(), &digest)
                    .is_some()
                {
                    return Ok(());
                }
                let runtime = worker.engine.runtime();
                // Small images are fetched at once anyway.
                let opened = runtime.block_on(Box::pin(async {
                    match &content {
                        Content::Whole => {
                            resolved.fetch_ahead();
                            resolved.import().await
                        }
                        Content::Parts(parts) => {
                            resolved.fetch_parts_ahead(parts);
                            resolved.import_parts(parts).await
                        }
                    }
                }));
                let opened = opened.map_err(attach(origin))?;
                let hot = worker.profiles.hot(origin, &resolved.digest, &opened.tree);
                let mut catalog = worker.mounts.catalog.lock();
                let kept = worker
                    .mounts
                    .keep_new(worker, &mut catalog, opened, &hot, &digest)
                    .map_err(attach(origin))?;
                // Used now: what was just kept is not what is evicted first.
                catalog.used(&worker.store, &kept.name, Some(&origin.reference));
                Ok(())
            })
        })
        .await
    }

    /// Mounts what was kept under a digest on an empty directory, or says that it is mounted there already. Asks
    /// nobody on the network. All of it is fetched in the background if that is asked for, or better.
    ///
    /// # Errors
    /// If it is not kept (any more), or can't be mounted.
    pub async fn mount_kept(
        &self,
        digest: Digest,
        mut request: MountRequest,
        fetched: Option<&Fetched>,
    ) -> Result<MountStatus, NodeError> {
        let fetched = fetched.cloned();
        self.does(move |worker| {
            worker.make_root_again();
            let transport = worker.transports.choose(request.transport)?;
            let mut catalog = worker.mounts.catalog.lock();
            let kept = worker.mounts.find(worker, &mut catalog, &digest);
            let kept = kept.ok_or_else(|| MountError::NoImage {
                reference: digest.to_string(),
            })?;
            request.prefetch_all |= is_better_whole(&kept);
            let source = match &fetched {
                Some(fetched) => (fetched.resolved.source(), fetched.latency),
                None => {
                    let runtime = worker.engine.runtime();
                    let source = runtime.block_on(worker.sources.open_source(&request.origin));
                    let failed = |error| AttachError::Origin(Box::new(error));
                    let source = source.map_err(failed).map_err(attach(&request.origin))?;
                    (source, LATENCY_UNKNOWN)
                }
            };
            let mounts = &worker.mounts;
            mounts.place(worker, &mut catalog, &request, transport, kept, source)
        })
        .await
    }

    /// Whether an image is mounted on a directory and served.
    pub async fn is_served(&self, dir: PathBuf) -> bool {
        let served = self.does(move |worker| Ok(worker.mounts.is_served(&dir)));
        served.await.unwrap_or(false)
    }

    /// Unmounts what is on a directory. Whoever still uses it, such as a container, goes on.
    ///
    /// # Errors
    /// If nothing is mounted there.
    pub async fn unmount(&self, dir: PathBuf) -> Result<(), NodeError> {
        self.does(move |worker| worker.mounts.umount(worker, &dir))
            .await
    }

    /// Removes what was kept under a digest, unless it is mounted.
    ///
    /// # Errors
    /// If it is mounted, or the store's files can't be removed.
    pub async fn forget(&self, digest: Digest) -> Result<(), NodeError> {
        self.does(
            move |worker| match worker.mounts.rm(worker, &digest.to_string()) {
                Ok(_) | Err(MountError::NoImage { .. }) => Ok(()),
                Err(error) => Err(error),
            },
        )
        .await
    }

    /// Bytes on this node of one blob of an image that is mounted, in whole blocks; none if it is not mounted.
    #[must_use]
    pub fn blob_bytes_present(&self, dir: &Path, blob: &Digest) -> Option<u64> {
        self.0.mounts.blob_bytes_present(&self.0, dir, blob)
    }
}

/// Whether a start of an image is faster if all of it is fetched at once than if each read waits for its own.
fn is_better_whole(kept: &Kept) -> bool {
    let stored = kept.record.blobs.iter().map(|blob| blob.stored_bytes);
    let start = start_bytes(&kept.touches);
    let most = kept.record.bytes_total.div_ceil(WHOLE_SHARE_DIVISOR);
    stored.fold(0, u64::saturating_add) <= WHOLE_BYTES_MAX || (start > 0 && start >= most)
}

fn attach(origin: &Origin) -> impl FnOnce(AttachError) -> MountError {
    |source| MountError::Attach {
        reference: origin.reference.clone(),
        source: Box::new(source),
    }
}

/// Under which key the keeper holds the socket that listens at a path.
fn listener_key(path: &Path) -> Key {
    let name = [b"listener ", path.as_os_str().as_encoded_bytes()].concat();
    *Digest::sha256(&name).as_bytes()
}

/// Takes the socket that listens at a path out of what the keeper holds from earlier workers.
pub(crate) fn take_listener(path: &Path, held: &mut BTreeMap<Key, OwnedFd>) -> Option<OwnedFd> {
    held.remove(&listener_key(path))
}

/// The socket that a service listens on: the one that the keeper holds, so that whoever connects while there is no
/// worker waits; or a new one, only for its owner. The keeper must be listened to already.
pub(crate) fn listener(path: &Path, held: Option<OwnedFd>, link: &Link) -> io::Result<OwnedFd> {
    let key = listener_key(path);
    let is_socket = |meta: std::fs::Metadata| meta.file_type().is_socket();
    if let Some(listener) = held {
        if fs_err::symlink_metadata(path).is_ok_and(is_socket) {
            return Ok(listener);
        }
        // Somebody removed it: nobody can connect to the old one any more.
        link.release(&key)?;
    }
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent)?;
    }
    match fs_err::symlink_metadata(path) {
        Ok(meta) if is_socket(meta.clone()) => fs_err::remove_file(path)?,
        Ok(_) => {
            let text = format!("{path:?} is there and no socket: name another place, or remove it");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Err(_) => {}
    }
    let listener = bind_for_owner(path)?;
    link.hold(key, listener.as_fd())?;
    Ok(listener)
}

/// Listens at a path that is its owner's from the first moment on.
fn bind_for_owner(path: &Path) -> io::Result<OwnedFd> {
    // Under another name until its mode is right.
    let mut hidden = path.as_os_str().to_owned();
    hidden.push(format!(".{}", std::process::id()));
    let hidden = PathBuf::from(hidden);
    let listener = UnixListener::bind(&hidden)?;
    let mode = std::fs::Permissions::from_mode(0o600);
    let placed =
        fs_err::set_permissions(&hidden, mode).and_then(|()| fs_err::rename(&hidden, path));
    if placed.is_err() {
        let _first_error_counts = fs_err::remove_file(&hidden);
    }
    placed.map(|()| listener.into())
}
