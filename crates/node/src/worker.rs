//! The worker: it serves, and may die at any moment.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use draught_store::Store;
use parking_lot::Mutex;
use tokio::runtime::Runtime;

use crate::catalog::Catalog;
use crate::control::{DaemonStatus, OverLimit, Reply, Request};
use crate::engine::Engine;
use crate::error::MountError;
use crate::keychain;
use crate::layout::Layout;
use crate::link::{self, Link};
use crate::metrics;
use crate::mounts::Mounts;
use crate::probe::Transports;
use crate::profiles::Profiles;
use crate::server::{self, After};
use crate::service::{self, Node, Service, Start};
use crate::source::{RegistrySettings, Sources};
use crate::state::{State, boot_id};

/// How long a listener sleeps at most before it looks whether anything else is to be done.
const LISTEN_PATIENCE: Duration = Duration::from_secs(3600);
/// How often a listener looks whether fewer reads wait, when as many do as can.
const CROWDED_POLL: Duration = Duration::from_millis(1);
/// How often what was filled is made durable. A power cut loses at most this much fetched data.
const SYNC_EVERY: Duration = Duration::from_secs(10);
/// How often touches are told to their images: before the ring of them is full.
const ATTRIBUTE_EVERY: Duration = Duration::from_millis(200);
/// Threads of the runtime: network and control; filling has threads of its own.
const RUNTIME_THREADS: usize = 2;
/// Threads that decode, verify and write, besides one for each processor: some wait for the disk. Each has a
/// decoder and buffers of some megabytes.
const FILL_THREADS_EXTRA: usize = 2;
/// How the worker's threads are called.
const THREAD_NAME: &str = "draught-worker";

/// Why a worker ended by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// It could not begin or go on.
    #[error("failed to {what}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The store can't be used.
    #[error("failed to open the chunk store")]
    Store(#[source] draught_store::OpenError),
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> WorkerError {
    move |source| WorkerError::Io { what, source }
}

/// What all parts of a worker share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) layout: Layout,
    pub(crate) store: Store,
    pub(crate) engine: Arc<Engine>,
    pub(crate) link: Arc<Link>,
    pub(crate) mounts: Mounts,
    pub(crate) profiles: Profiles,
    pub(crate) transports: Transports,
    pub(crate) sources: Sources,
    /// What the store may take on disk; none: as much as it likes.
    pub(crate) cache_bytes_max: Option<u64>,
    /// Whether an image's chunks take the places that others of the same content have.
    pub(crate) deduplicate: bool,
    /// By how much it takes more than that.
    pub(crate) over: Mutex<Option<OverLimit>>,
    /// What is served besides commands.
    pub(crate) service: OnceLock<Arc<dyn Service>>,
}

/// A service to run, and where it listens.
pub struct ServiceAt {
    /// The paths of its sockets.
    pub sockets: Vec<PathBuf>,
    /// What starts it.
    pub start: Start,
}

impl std::fmt::Debug for ServiceAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceAt")
            .field("sockets", &self.sockets)
            .finish_non_exhaustive()
    }
}

/// What a worker is told on its command line.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The planner's limits.
    pub planner: draught_fill::Settings,
    /// Bytes that the store may take on disk, but for what mounted images need; none: as much as it likes.
    pub cache_bytes_max: Option<u64>,
    /// Where metrics are served over HTTP, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Whether an image's chunks take the places that others of the same content have.
    pub deduplicate: bool,
    /// How registries are spoken to.
    pub registries: RegistrySettings,
}

/// Runs a worker until it is told to end. Its standard input is the line to its keeper.
///
/// # Errors
/// [`WorkerError`]; the keeper then starts another one.
pub fn run(
    layout: &Layout,
    settings: Settings,
    service: Option<ServiceAt>,
) -> Result<(), WorkerError> {
    crate::keeper::set_name(c"draught-worker");
    let mut inheritance = link::inherit().map_err(failed("take over from the keeper"))?;
    let service = service.map(|ServiceAt { sockets, start }| {
        let held = sockets.into_iter().map(|socket| {
            let held = service::take_listener(&socket, &mut inheritance.devices);
            (socket, held)
        });
        (held.collect::<Vec<_>>(), start)
    });
    let relisted = service::take_listener(&layout.socket(), &mut inheritance.devices);
    let (stale, fresh) = (inheritance.stale, inheritance.fresh);
    let mut devices = inheritance.devices;
    // Before what nobody claims is let go of.
    let kept = keychain::keys().map(|key| devices.remove(&key));
    let keychain = keychain::restore(kept.into_iter().flatten());
    let runtime = new_runtime().map_err(failed("start the runtime"))?;
    let boot = boot_id().map_err(failed("read the boot's identity"))?;
    let store = Store::open(&layout.store(), &boot).map_err(WorkerError::Store)?;
    let state = State::load(layout, &boot).map_err(failed("read the list of mounts"))?;
    let has_events = inheritance.events.raises_events();
    let engine = Engine::new(
        inheritance.events,
        runtime.handle().clone(),
        settings.planner,
    );
    let worker = Arc::new(Worker {
        layout: layout.clone(),
        store,
        engine,
        link: Arc::new(inheritance.link),
        mounts: Mounts::new(boot),
        profiles: Profiles::new(layout),
        transports: Transports::new(layout.root(), has_events),
        sources: Sources::new(settings.registries, keychain),
        cache_bytes_max: settings.cache_bytes_max,
        deduplicate: settings.deduplicate,
        over: Mutex::default(),
        service: OnceLock::new(),
    });
    if let Some(state) = state {
        if fresh {
            worker
                .mounts
                .refuse_orphans(&worker, state, inheritance.lingers);
        } else {
            worker.mounts.restore(&worker, state, devices);
        }
    }
    worker.link.serving().map_err(failed("tell the keeper"))?;
    tracing::info!(pid = std::process::id(), stale = stale.len(), "serving");
    worker.engine.on_reads(stale);
    start_threads(&worker)?;
    runtime.block_on(async {
        drop(tokio::spawn(Arc::clone(&worker.engine).keep_time()));
        drop(tokio::spawn(keep_durable(Arc::clone(&worker))));
        drop(tokio::spawn(attribute(Arc::clone(&worker.engine))));
        if let Some(listener) = relisted {
            // An earlier worker had to listen once more under the same name.
            drop(tokio::spawn(server::serve(Arc::clone(&worker), listener)));
        }
        if let Some((sockets, start)) = service {
            match start_service(&worker, sockets, start).await {
                Err(error) if !fresh => {
                    // Whoever reads is served in any case.
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "going on without the service");
                }
                started => started?,
            }
        }
        let keychain = Arc::clone(worker.sources.keychain());
        drop(tokio::spawn(keychain::keep(
            keychain,
            Arc::clone(&worker.link),
        )));
        if let Some(address) = settings.metrics {
            drop(tokio::spawn(metrics::serve(Arc::clone(&worker), address)));
        }
        ignore_termination().map_err(failed("wait for signals"))?;
        server::serve(Arc::clone(&worker), inheritance.control)
            .await
            .map_err(failed("serve the control socket"))
    })
}

/// Who wants us to stop tells the keeper, which asks us in order.
fn ignore_termination() -> io::Result<()> {
    let kind = tokio::signal::unix::SignalKind::terminate();
    let mut terminate = tokio::signal::unix::signal(kind)?;
    drop(tokio::spawn(async move {
        while terminate.recv().await.is_some() {}
    }));
    Ok(())
}

fn new_runtime() -> io::Result<Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .max_blocking_threads(processors + FILL_THREADS_EXTRA)
        .thread_name(THREAD_NAME)
        .enable_all()
        .build()
}

/// Starts a service on its sockets, each with what the keeper holds of it.
async fn start_service(
    worker: &Arc<Worker>,
    sockets: Vec<(PathBuf, Option<OwnedFd>)>,
    start: Start,
) -> Result<(), WorkerError> {
    let listening = sockets
        .into_iter()
        .map(|(socket, held)| service::listener(&socket, held, &worker.link));
    let listening = listening.collect::<io::Result<Vec<_>>>();
    let listening = listening.map_err(failed("listen on a service's socket"))?;
    let started = start(Node::new(Arc::clone(worker)), listening).await;
    let started = started.map_err(failed("start the service"))?;
    let _only_one = worker.service.set(started);
    Ok(())
}

fn start_threads(worker: &Arc<Worker>) -> Result<(), WorkerError> {
    let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map(drop)
            .map_err(failed("start a thread"))
    };
    if worker.engine.listener().raises_events() {
        let listening = Arc::clone(worker);
        spawn("draught-events", Box::new(move || listen(&listening)))?;
    }
    let indexing = Arc::clone(worker);
    spawn(
        "draught-index",
        Box::new(move || {
            indexing.store.load_index();
            // What an earlier worker did not live to collect.
            if let Err(error) = indexing.mounts.gc(&indexing, None) {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "collecting what nobody refers to failed");
            }
        }),
    )?;
    let linked = Arc::clone(worker);
    spawn(
        "draught-link",
        Box::new(move || {
            // In a thread of its own: a mount that is being made waits for what this one receives.
            let stop = || {
                let stopping = Arc::clone(&linked);
                drop(std::thread::spawn(move || stopping.stop_for_keeper()));
            };
            let error = linked.link.listen(&linked.layout, stop);
            // Without a keeper the next crash would be silent corruption: say so as loudly as we can.
            tracing::error!(%error, "failed to take the keeper's place");
        }),
    )
}

/// Takes events until the group fails; then there is nothing left to do but to let the keeper start
/// another worker, which asks the kernel anew.
fn listen(worker: &Worker) {
    // Each read that waits has a descriptor. Those beyond stay in the kernel's queue, where they cost us
    // nothing: without a descriptor for the next event the group fails.
    let files = draught_sys::limits::raise_open_files();
    let waiting_max = usize::try_from(files / 2).unwrap_or(usize::MAX);
    loop {
        while worker.engine.waiting() >= waiting_max {
            std::thread::sleep(CROWDED_POLL);
        }
        match worker.engine.listener().take(0, LISTEN_PATIENCE) {
            Ok(reads) => worker.engine.on_reads(reads),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "events failed");
                std::process::abort();
            }
        }
    }
}

async fn keep_durable(worker: Arc<Worker>) {
    loop {
        tokio::time::sleep(SYNC_EVERY).await;
        let syncing = Arc::clone(&worker);
        let synced = tokio::task::spawn_blocking(move || {
            syncing.make_root_again();
            syncing.mounts.collect_detached(&syncing);
            syncing.engine.sync();
            syncing.mounts.revive_devices(&syncing);
            syncing.keep_house();
        });
        if synced.await.is_err() {
            tracing::error!("making devices durable failed");
        }
    }
}

async fn attribute(engine: Arc<Engine>) {
    loop {
        tokio::time::sleep(ATTRIBUTE_EVERY).await;
        engine.attribute_touches();
    }
}

impl Worker {
    /// Makes the state directory again if somebody removed it. What is mounted goes on from memory, and from files
    /// that have no names any more; what is mounted from now on is kept anew.
    pub(crate) fn make_root_again(self: &Arc<Self>) {
        let made = self.store.make_again().and_then(|was_gone| {
            if was_gone {
                tracing::error!(root = ?self.layout.root(), "the state directory was removed under a running daemon: it is made again; mounts go on");
                *self.mounts.catalog.lock() = Catalog::default();
                let inner = self.mounts.inner.lock();
                let saved = self.mounts.save(self, &inner);
                saved.map_err(io::Error::other)?;
            }
            if !self.layout.socket().exists() {
                self.listen_again()?;
            }
            Ok(())
        });
        if let Err(error) = made {
            tracing::error!(%error, "the state directory can't be made again");
        }
    }

    /// Listens for commands under the name that somebody removed.
    fn listen_again(self: &Arc<Self>) -> io::Result<()> {
        let listener = service::listener(&self.layout.socket(), None, &self.link)?;
        let worker = Arc::clone(self);
        let serving = self.engine.runtime().spawn(async move {
            if let Err(error) = server::serve(worker, listener).await {
                tracing::error!(%error, "commands can't be served");
            }
        });
        drop(serving);
        Ok(())
    }

    /// Keeps recordings, makes images' files durable, and the store as small as it is to be.
    fn keep_house(&self) {
        for image in self.engine.images() {
            self.keep_touches(&image);
            image.read_ahead_as_usual();
        }
        if self.deduplicate {
            self.learn_some();
        }
        if let Err(error) = self.store.sync_images() {
            tracing::warn!(%error, "files of images could not be made durable");
        }
        let evicted = self.mounts.evict(self).map(drop);
        if let Err(error) = evicted.and_then(|()| self.mounts.collect_rest(self)) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "collecting failed");
        }
    }

    /// Carries out a command.
    pub(crate) async fn handle(self: &Arc<Self>, request: Request) -> (Reply, After) {
        let result = match request {
            Request::Ping => Ok(Reply::Done),
            Request::Mount(request) => {
                self.does(move |worker| worker.mounts.mount(worker, request).map(Reply::Mounted))
                    .await
            }
            Request::Umount { dir } => {
                self.does(move |worker| worker.mounts.umount(worker, &dir).map(|()| Reply::Done))
                    .await
            }
            Request::Ps => self.does(|worker| Ok(Reply::Status(worker.status()))).await,
            Request::Rm { reference } => {
                self.does(move |worker| worker.mounts.rm(worker, &reference).map(Reply::Removed))
                    .await
            }
            Request::Gc { unused_for_s } => {
                self.does(move |worker| worker.mounts.gc(worker, unused_for_s).map(Reply::Removed))
                    .await
            }
            Request::Df => {
                self.does(|worker| worker.mounts.df(worker).map(Reply::Df))
                    .await
            }
            Request::ProfileExport { reference } => {
                self.does(move |worker| worker.export_profile(&reference).map(Reply::Text))
                    .await
            }
            Request::ProfileImport { reference, text } => {
                let done = |()| Reply::Done;
                self.does(move |worker| worker.import_profile(&reference, &text).map(done))
                    .await
            }
            Request::Trace { reference } => {
                let boxed = |trace| Reply::Trace(Box::new(trace));
                self.does(move |worker| worker.trace(&reference).map(boxed))
                    .await
            }
            Request::Metrics => self.does(|worker| Ok(Reply::Text(worker.metrics()))).await,
            Request::Stop => {
                let done = |()| Reply::Done;
                match self.does(move |worker| worker.stop().map(done)).await {
                    Ok(done) => return (done, After::Exit),
                    Err(error) => Err(error),
                }
            }
            Request::Upgrade { executable } => match self.upgrade(&executable) {
                Ok(()) => return (Reply::Done, After::Exit),
                Err(error) => Err(error),
            },
        };
        let reply = result.unwrap_or_else(|error| Reply::Failed(chain(&error)));
        (reply, After::Nothing)
    }

    /// Does something in a thread of its own.
    async fn does(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> Result<Reply, MountError> + Send + 'static,
    ) -> Result<Reply, MountError> {
        let worker = Arc::clone(self);
        blocking(move || work(&worker)).await
    }

    fn status(&self) -> DaemonStatus {
        DaemonStatus {
            keeper_pid: std::os::unix::process::parent_id(),
            worker_pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            events: self.engine.events(),
            mounts: self.mounts.status(self),
            layers: self.service.get().map_or_else(Vec::new, |it| it.layers()),
        }
    }

    /// Unmounts everything and tells the keeper to stop; if something is in use, nothing is stopped.
    fn stop(&self) -> Result<(), MountError> {
        self.mounts.umount_all(self)?;
        self.engine.sync();
        self.link.quit().map_err(MountError::Keeper)
    }

    fn stop_for_keeper(&self) {
        match self.stop() {
            Ok(()) => self.exit(),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "not stopping");
                let _keeper_is_gone_too = self.link.busy();
            }
        }
    }

    fn upgrade(&self, executable: &Path) -> Result<(), MountError> {
        let file = fs_err::File::open(executable).map_err(MountError::Executable)?;
        self.link
            .upgrade(file.into_parts().0.into())
            .map_err(MountError::Keeper)
    }

    /// Ends this process; the keeper decides what comes next. Everything that matters is on disk or with
    /// the keeper, as it would be after a crash.
    pub(crate) fn exit(&self) {
        self.engine.sync();
        std::process::exit(0);
    }
}

/// Does something in a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MountError> + Send + 'static,
) -> Result<T, MountError> {
    // Not one of the threads that fill: commands wait for registries and for each other.
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let spawned = std::thread::Builder::new()
        .name("draught-command".to_owned())
        .spawn(move || {
            // Who asked may have hung up.
            let _nobody_waits = sender.send(work());
        });
    match spawned {
        Ok(_) => receiver.await.unwrap_or(Err(MountError::Crashed)),
        Err(error) => Err(MountError::Thread(error)),
    }
}

/// An error and its reasons.
pub(crate) fn chain(error: &dyn std::error::Error) -> Vec<String> {
    let mut chain = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        chain.push(error.to_string());
        source = error.source();
    }
    chain
}
