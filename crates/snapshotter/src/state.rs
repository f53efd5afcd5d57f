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
            let done = ready(database, records).and_then(|()| {
                let planned = plan(&records.read(), &mut || database.new_id());
                let (change, result) = planned?;
                if change.is_none() {
                    return Ok(result);
                }
                // While it is written, others may look at what was.
                if let Err(error) = database.write(&change) {
                    // Nobody knows whether it was written: what is there counts.
                    let _said_next_time = open_again(database, records);
                    return Err(error);
                }
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

/// Sees to it that the database can be written to, whatever happened to it.
fn ready(database: &mut Database, records: &RwLock<Records>) -> Result<()> {
    if database.is_gone() {
        tracing::error!(path = ?database.path(), "the snapshots' database was removed: it is made again");
        database.make_again(&records.read())?;
    }
    if database.has_failed() {
        open_again(database, records)?;
    }
    Ok(())
}

fn open_again(database: &mut Database, records: &RwLock<Records>) -> Result<()> {
    let found = database.open_again()?;
    *records.write() = found;
    Ok(())
}

fn work(mut database: Database, records: &RwLock<Records>, queue: &Receiver<Job>) {
    tracing::debug!(path = ?database.path(), "snapshots are read");
    while let Ok(job) = queue.recv() {
        job(&mut database, records);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::PathBuf;

    use draught_testkit::{Scratch, need};
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

    use super::*;
    use crate::record::{Kind, Labels, Record};

    fn record(id: u64) -> Record {
        Record {
            id,
            kind: Kind::Active,
            parent: String::new(),
            labels: Labels::from([("filler".to_owned(), "x".repeat(3000))]),
            created: 0,
            updated: 0,
            bytes: 0,
            inodes: 0,
            lazy: None,
            eager: None,
        }
    }

    async fn put(state: &State, name: &str) -> Result<u64> {
        let name = name.to_owned();
        let put = state.change(|_, new_id| {
            let id = new_id();
            let change = Change {
                put: Some((name, record(id))),
                ..Change::default()
            };
            Ok((change, id))
        });
        put.await
    }

    fn names(state: &State) -> Vec<String> {
        state.look().iter().map(|(name, _)| name.clone()).collect()
    }

    #[tokio::test]
    async fn what_was_said_to_be_done_is_there_the_next_time() {
        let scratch = Scratch::new();
        let path = scratch.join("snapshots.redb");
        let first = {
            let state = State::open(&path).unwrap();
            put(&state, "a").await.unwrap();
            put(&state, "b").await.unwrap()
        };
        // The thread ends when nobody can ask it any more.
        let state = loop {
            match State::open(&path) {
                Ok(state) => break state,
                Err(Error::Database { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(names(&state), ["a", "b"]);
        assert!(put(&state, "c").await.unwrap() > first);
    }

    #[tokio::test]
    async fn a_full_disk_is_an_error_until_there_is_room() {
        if !need::root() {
            return;
        }
        let scratch = Scratch::new();
        let dir = scratch.dir("small");
        mount(
            "tmpfs",
            &dir,
            "tmpfs",
            MountFlags::empty(),
            Some(c"size=8m"),
        )
        .unwrap();
        let done = tokio::spawn(fill_and_make_room(dir.clone())).await;
        // The thread lets go of its file when it ends.
        while unmount(&dir, UnmountFlags::empty()).is_err() {
            tokio::task::yield_now().await;
        }
        done.unwrap();
    }

    async fn fill_and_make_room(dir: PathBuf) {
        let state = State::open(&dir.join("snapshots.redb")).unwrap();
        put(&state, "before").await.unwrap();
        let filler = dir.join("filler");
        let mut file = fs_err::File::create(&filler).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        let mut there = vec!["before".to_owned()];
        let mut failed = 0;
        for number in 0..1000 {
            let name = format!("full-{number:03}");
            match put(&state, &name).await {
                Ok(_) => there.push(name),
                Err(_) => failed += 1,
            }
            if failed == 3 {
                break;
            }
        }
        assert_eq!(failed, 3, "the disk did not fill");
        // What is there can be looked at all the while.
        assert!(there.iter().all(|name| state.look().get(name).is_some()));
        drop(file);
        fs_err::remove_file(&filler).unwrap();
        put(&state, "later").await.unwrap();
        let found = names(&state);
        assert!(there.iter().all(|name| found.contains(name)), "{found:?}");
        assert!(found.contains(&"later".to_owned()));
    }
}
