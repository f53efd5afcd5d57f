//! The worker: it serves, and may die at any moment.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use draught_store::Store;

use crate::control::{DaemonStatus, Reply, Request};
use crate::engine::Engine;
use crate::layout::Layout;
use crate::link::{self, Link};
use crate::mounts::{MountError, Mounts};
use crate::server::{self, After};
use crate::state::{State, boot_id};

/// How long a listener sleeps at most before it looks whether anything else is to be done.
const LISTEN_PATIENCE: Duration = Duration::from_secs(3600);
/// How often a listener looks whether fewer reads wait, when as many do as can.
const CROWDED_POLL: Duration = Duration::from_millis(1);
/// How often what was filled is made durable. A power cut loses at most this much fetched data.
const SYNC_EVERY: Duration = Duration::from_secs(10);
/// Threads of the runtime: network and control; filling has threads of its own.
const RUNTIME_THREADS: usize = 2;
/// Threads that decode, verify and write.
const FILL_THREADS_MAX: usize = 16;
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
}

/// Runs a worker until it is told to end. Its standard input is the line to its keeper.
///
/// # Errors
/// [`WorkerError`]; the keeper then starts another one.
pub fn run(layout: &Layout, settings: draught_fill::Settings) -> Result<(), WorkerError> {
    crate::keeper::set_name(c"draught-worker");
    let inheritance = link::inherit().map_err(failed("take over from the keeper"))?;
    let stale = inheritance.stale;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .max_blocking_threads(FILL_THREADS_MAX)
        .thread_name(THREAD_NAME)
        .enable_all()
        .build()
        .map_err(failed("start the runtime"))?;
    let boot = boot_id().map_err(failed("read the boot's identity"))?;
    let store = Store::open(&layout.store(), &boot).map_err(WorkerError::Store)?;
    let state = State::load(layout, &boot).map_err(failed("read the list of mounts"))?;
    let engine = Engine::new(inheritance.events, runtime.handle().clone(), settings);
    let worker = Arc::new(Worker {
        layout: layout.clone(),
        store,
        engine,
        link: Arc::new(inheritance.link),
        mounts: Mounts::new(boot),
    });
    if let Some(state) = state {
        if inheritance.fresh {
            worker.mounts.refuse_orphans(&worker, state);
        } else {
            worker.mounts.restore(&worker, state, inheritance.devices);
        }
    }
    worker.link.serving().map_err(failed("tell the keeper"))?;
    tracing::info!(pid = std::process::id(), stale = stale.len(), "serving");
    worker.engine.on_reads(stale);
    start_threads(&worker)?;
    runtime.block_on(async {
        drop(tokio::spawn(Arc::clone(&worker.engine).keep_time()));
        drop(tokio::spawn(keep_durable(Arc::clone(&worker))));
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                .map_err(failed("wait for signals"))?;
        // Who wants us to stop tells the keeper, which asks us in order.
        drop(tokio::spawn(async move {
            while terminate.recv().await.is_some() {}
        }));
        server::serve(Arc::clone(&worker), inheritance.control)
            .await
            .map_err(failed("serve the control socket"))
    })
}

fn start_threads(worker: &Arc<Worker>) -> Result<(), WorkerError> {
    let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map(drop)
            .map_err(failed("start a thread"))
    };
    let listening = Arc::clone(worker);
    spawn("draught-events", Box::new(move || listen(&listening)))?;
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
            syncing.mounts.collect_detached(&syncing);
            syncing.engine.sync();
            syncing.mounts.revive_devices(&syncing);
        });
        if synced.await.is_err() {
            tracing::error!("making devices durable failed");
        }
    }
}

impl Worker {
    /// Carries out a command.
    pub(crate) async fn handle(self: &Arc<Self>, request: Request) -> (Reply, After) {
        let result = match request {
            Request::Ping => Ok(Reply::Done),
            Request::Mount { origin, dir } => {
                let worker = Arc::clone(self);
                blocking(move || worker.mounts.mount(&worker, origin, dir))
                    .await
                    .map(Reply::Mounted)
            }
            Request::Umount { dir } => {
                let worker = Arc::clone(self);
                blocking(move || worker.mounts.umount(&worker, &dir))
                    .await
                    .map(|()| Reply::Done)
            }
            Request::Ps => {
                let worker = Arc::clone(self);
                blocking(move || Ok(worker.status()))
                    .await
                    .map(Reply::Status)
            }
            Request::Stop => {
                let worker = Arc::clone(self);
                match blocking(move || worker.stop()).await {
                    Ok(()) => return (Reply::Done, After::Exit),
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

    fn status(&self) -> DaemonStatus {
        DaemonStatus {
            keeper_pid: std::os::unix::process::parent_id(),
            worker_pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mounts: self.mounts.status(self),
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

async fn blocking<T: Send + 'static>(
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

fn chain(error: &dyn std::error::Error) -> Vec<String> {
    let mut chain = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        chain.push(error.to_string());
        source = error.source();
    }
    chain
}
