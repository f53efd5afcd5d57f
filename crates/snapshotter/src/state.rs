//! The snapshots while this process runs: anybody may look, one thread makes changes.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::oneshot;

use crate::database::Database;
use crate::error::{Error, Result};
use crate::records::{Change, Records};

/// Changes that wait for the thread at most; whoever comes then waits before it.
const WAITING_MAX: usize = 1024;

type Job = Box<dyn FnOnce(&mut Database, &RwLock<Records>) + Send>;

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct State {
    records: Arc<RwLock<Records>>,
    jobs: SyncSender<Job>,
}

impl State {
    /// Opens the database and starts the thread.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let (database, records) = Database::open(path)?;
        let records = Arc::new(RwLock::new(records));
        let (jobs, queue) = sync_channel(WAITING_MAX);
        let shared = Arc::clone(&records);
        std::thread::Builder::new()
            .name("draught-records".to_owned())
            .spawn(move || work(database, &shared, &queue))
            .map_err(Error::io("start a thread"))?;
        Ok(Self { records, jobs })
    }

    /// Looks at the snapshots. Nothing may be waited for while this is held.
    pub(crate) fn look(&self) -> RwLockReadGuard<'_, Records> {
        self.records.read()
    }

    /// Makes a change: `plan` looks at the snapshots, which nobody changes meanwhile, and says what is to become of
    /// them; it may make directories. When this returns without an error, the change is on disk.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        plan: impl FnOnce(&Records, &mut dyn FnMut() -> u64) -> Result<(Change, T)> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |database, records| {
            if database.is_gone() {
                tracing::error!(path = ?database.path(), "the snapshots' database was removed: it is made again");
                if let Err(error) = database.make_again(&records.read()) {
                    let _nobody_waits = answer.send(Err(error));
                    return;
                }
            }
            let planned = plan(&records.read(), &mut || database.new_id());
            let done = planned.and_then(|(change, result)| {
                // While it is written, others may look at what was.
                database.write(&change)?;
                records.write().apply(change);
                Ok(result)
            });
            // Who asked may have hung up; what is done is done.
            let _nobody_waits = answer.send(done);
        });
        let crashed = || Error::Io {
            what: "reach the thread that changes snapshots",
            source: std::io::ErrorKind::BrokenPipe.into(),
        };
        // Only when a thousand wait does this wait, and then there is nothing better to do.
        let jobs = self.jobs.clone();
        if let Err(error) = jobs.try_send(job) {
            let job = match error {
                std::sync::mpsc::TrySendError::Full(job) => job,
                std::sync::mpsc::TrySendError::Disconnected(_) => return Err(crashed()),
            };
            let sent = tokio::task::spawn_blocking(move || jobs.send(job)).await;
            if !matches!(sent, Ok(Ok(()))) {
                return Err(crashed());
            }
        }
        answered.await.unwrap_or_else(|_| Err(crashed()))
    }
}

fn work(mut database: Database, records: &RwLock<Records>, queue: &Receiver<Job>) {
    tracing::debug!(path = ?database.path(), "snapshots are read");
    while let Ok(job) = queue.recv() {
        job(&mut database, records);
    }
}
