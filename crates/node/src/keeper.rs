//! The keeper: it owns what must outlive a crash, and does nothing else.
//!
//! One thread, no network, no decoder. It holds the fanotify group, the journal, the listening socket
//! and the write descriptors of all devices; it starts the worker, hands them to it, and starts the next
//! one when it dies. If the keeper itself is killed, its worker notices, and turns into the keeper.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use draught_sys::fanotify::Group;
use draught_sys::journal::Journal;
use draught_sys::notify::{LISTEN, Notifier};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FlockOperation;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::client::ClientError;
use crate::descriptor_store::{self, Back, DescriptorStore, Kept};
use crate::guard;
use crate::handover::{self, Key, Received, ToKeeper, ToWorker};
use crate::layout::Layout;

/// Deaths of workers that never served, in a row, before the keeper begins to wait in between.
const EAGER_RESTARTS: u32 = 3;
/// Longest wait between two starts.
const RESTART_DELAY_MAX: Duration = Duration::from_secs(2);

/// How long the lock is asked for before another daemon is taken for running.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// How often it is asked for.
const LOCK_POLL: Duration = Duration::from_millis(20);
/// How long a new program may take until it serves, before the one before is used again.
const TRIAL: Duration = Duration::from_secs(15);
/// How long a worker may leave what it is sent lying.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(10);
/// The pause before a guard that died is replaced.
const GUARD_DELAY: Duration = Duration::from_millis(100);

/// Why a keeper can't start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeeperError {
    /// Another one runs.
    #[error("a daemon already runs for {root:?}")]
    Running {
        /// The state directory.
        root: std::path::PathBuf,
    },
    /// Its workers end before they serve.
    #[error("the worker could not start, {attempts} times: its own message says why")]
    Worker {
        /// Times that it was started.
        attempts: u32,
    },
    /// One that runs did not go on as the service that this was to be.
    #[error("a daemon runs already, and did not become this service")]
    HandOver(#[source] ClientError),
    /// A file, socket or process failed.
    #[error("failed to {what}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> KeeperError {
    move |source| KeeperError::Io { what, source }
}

/// What a keeper holds.
#[derive(Debug)]
pub(crate) struct Holdings {
    pub(crate) lock: File,
    pub(crate) group: Group,
    pub(crate) journal: Journal,
    pub(crate) listener: OwnedFd,
    /// The line to the guard, once there is one.
    pub(crate) guard: Option<OwnedFd>,
    pub(crate) devices: BTreeMap<Key, OwnedFd>,
    /// No worker has served these yet.
    pub(crate) fresh: bool,
    /// An earlier group may be alive, with marks on devices.
    pub(crate) lingers: bool,
}

impl Holdings {
    fn new(layout: &Layout, lock: File, lingers: bool) -> Result<Self, KeeperError> {
        let group = match Group::new() {
            Ok(group) => group,
            Err(error) => {
                tracing::info!(%error, "no pre-content events here: mounts go through FUSE");
                Group::none().map_err(failed("open /dev/null"))?
            }
        };
        let journal = Journal::create().map_err(failed("make the journal"))?;
        let path = layout.socket();
        match fs_err::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove the old socket")(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(failed("listen on the socket"))?;
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
            .map_err(failed("restrict the socket to its owner"))?;
        let listener = OwnedFd::from(listener);
        let devices = BTreeMap::new();
        Ok(Self {
            lock,
            group,
            journal,
            listener,
            guard: None,
            devices,
            fresh: true,
            lingers,
        })
    }
}

impl Holdings {
    /// What the service manager kept of a keeper and a worker that are both gone.
    fn kept(lock: File, kept: Kept) -> Self {
        let Kept {
            group,
            journal,
            listener,
            guard,
            devices,
        } = kept;
        Self {
            lock,
            group,
            journal,
            listener,
            guard,
            devices,
            fresh: false,
            lingers: false,
        }
    }
}

/// Takes the keeper's lock. Its descriptor is what holds it: it goes with the holdings.
pub(crate) fn lock(layout: &Layout) -> Result<File, KeeperError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match try_lock(layout).map_err(failed("lock the state directory"))? {
            Some(lock) => return Ok(lock),
            None if Instant::now() > deadline => {
                let root = layout.root().to_path_buf();
                return Err(KeeperError::Running { root });
            }
            // One that stops removes its socket first, one that was killed is gone bit by bit, and a guard
            // holds the lock for a moment.
            None => std::thread::sleep(LOCK_POLL),
        }
    }
}

/// Takes the keeper's lock, if nobody has it.
fn try_lock(layout: &Layout) -> io::Result<Option<File>> {
    let lock = fs_err::OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(layout.keeper_lock())?;
    let lock = lock.into_parts().0;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(lock)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// How the keeper ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Again,
    End,
    /// The worker is to take this process' place.
    Leave,
}

struct Keeper<'a> {
    layout: &'a Layout,
    /// Environment of the workers, besides the keeper's own.
    environment: &'a [(&'static str, String)],
    holdings: Holdings,
    executable: OwnedFd,
    /// What `executable` was until an upgrade that has not served yet.
    previous: Option<OwnedFd>,
    guard_process: Option<Child>,
    signals: OwnedFd,
    failures: u32,
    /// Whether this worker has served.
    served: bool,
    quit: bool,
    /// What the service manager keeps, if there is one.
    store: Option<DescriptorStore>,
    /// Whether it has all that is held.
    is_stored: bool,
}

struct Worker {
    child: Child,
    pidfd: OwnedFd,
    socket: OwnedFd,
}

/// Runs a keeper until it is stopped. `environment` is for its workers, besides its own.
///
/// Started by a service manager, it goes on with what that kept for it; if another daemon runs already, that one
/// becomes the service.
///
/// # Errors
/// [`KeeperError`].
pub fn run(layout: &Layout, environment: &[(&'static str, String)]) -> Result<(), KeeperError> {
    fs_err::create_dir_all(layout.root()).map_err(failed("make the state directory"))?;
    let lock = match (lock(layout), Notifier::from_env()) {
        (Err(KeeperError::Running { .. }), Some(notifier)) => {
            return descriptor_store::hand_to_running(layout, &notifier)
                .map_err(KeeperError::HandOver);
        }
        (lock, _) => lock?,
    };
    let mut store = DescriptorStore::of_generation(layout);
    let kept = match &mut store {
        Some(store) => store.take_back(),
        // What a manager may keep is of another generation from now on.
        None => match fs_err::remove_file(layout.descriptors()) {
            Ok(()) => Back::Lingers,
            Err(_) => Back::Nothing,
        },
    };
    let holdings = match kept {
        Back::Kept(kept) => Holdings::kept(lock, *kept),
        Back::Lingers => Holdings::new(layout, lock, true)?,
        Back::Nothing => Holdings::new(layout, lock, false)?,
    };
    run_with(layout, holdings, store, environment)
}

/// Runs a keeper on what another one held.
pub(crate) fn run_with(
    layout: &Layout,
    holdings: Holdings,
    store: Option<DescriptorStore>,
    environment: &[(&'static str, String)],
) -> Result<(), KeeperError> {
    // It holds a descriptor of every device.
    draught_sys::limits::raise_open_files();
    let executable = fs_err::File::open("/proc/self/exe")
        .map(|file| file.into_parts().0)
        .map_err(failed("open the executable"))?
        .into();
    write_pid(&holdings.lock).map_err(failed("write the lock's process number"))?;
    set_name(c"draught-keeper");
    let (signals, sender) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| failed("make a pipe")(errno.into()))?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        let sender = sender.try_clone().map_err(failed("make a pipe"))?;
        signal_hook::low_level::pipe::register(signal, sender)
            .map_err(failed("wait for signals"))?;
    }
    let mut keeper = Keeper {
        layout,
        environment,
        holdings,
        executable,
        previous: None,
        guard_process: None,
        signals,
        failures: 0,
        served: false,
        quit: false,
        store,
        is_stored: false,
    };
    loop {
        match keeper.run_worker()? {
            Turn::Again => {}
            Turn::End => {
                keeper.end();
                return Ok(());
            }
            Turn::Leave => return Ok(()),
        }
        keeper.fall_back();
        let attempts = keeper.failures;
        if keeper.holdings.fresh && attempts >= EAGER_RESTARTS {
            // Nobody was ever served, so nobody waits: whoever started this is to see that it failed.
            keeper.end();
            return Err(KeeperError::Worker { attempts });
        }
        keeper.delay();
    }
}

/// Commands whose descriptors are not those of a service manager.
pub(crate) trait WithoutListen {
    /// Takes out what would say that they are.
    fn without_listen(&mut self) -> &mut Self;
}

impl WithoutListen for Command {
    fn without_listen(&mut self) -> &mut Self {
        LISTEN
            .iter()
            .fold(self, |command, name| command.env_remove(name))
    }
}

fn write_pid(lock: &File) -> io::Result<()> {
    rustix::fs::ftruncate(lock, 0)?;
    let text = format!("{}\n", std::process::id());
    rustix::io::pwrite(lock, text.as_bytes(), 0)?;
    Ok(())
}

/// Names this process, so that `ps` shows which of the two it is.
pub(crate) fn set_name(name: &std::ffi::CStr) {
    // Only a label: a kernel that refuses it changes nothing.
    let _label = rustix::thread::set_name(name);
}

impl Keeper<'_> {
    fn spawn(&self) -> io::Result<Worker> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // By descriptor: what lies at the path may be another version by now.
        let executable = format!("/proc/self/fd/{}", self.executable.as_raw_fd());
        let child = Command::new(executable)
            .arg0("draught")
            .arg("--root")
            .arg(self.layout.root())
            .args(["daemon", "--worker"])
            .without_listen()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(theirs))
            // A terminal's Ctrl-C is for the keeper, which stops in order.
            .process_group(0)
            .spawn()?;
        set_socket_timeout(&ours, Timeout::Send, Some(HANDOVER_PATIENCE))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Worker {
            child,
            pidfd,
            socket: ours,
        })
    }

    /// Leaves nothing behind.
    fn end(&mut self) {
        if let Some(store) = &mut self.store {
            store.clear();
        }
        self.holdings.guard.iter().for_each(guard::dismiss);
        let _gone = fs_err::remove_file(self.layout.socket());
    }

    /// Goes back to the program before an upgrade, if the new one ended without having served.
    fn fall_back(&mut self) {
        if self.served {
            return;
        }
        if let Some(previous) = self.previous.take() {
            tracing::error!("the new program did not serve: going on with the one before");
            self.executable = previous;
            self.failures = 0;
        }
    }

    /// Replaces a guard that died; the worker gets the line to the new one first.
    fn replace_guard(&mut self, worker: &Worker) {
        tracing::error!("the guard is gone: starting another");
        std::thread::sleep(GUARD_DELAY);
        self.holdings.guard = None;
        if let Err(error) =
            self.start_guard(|line| handover::send_guard(worker.socket.as_fd(), line))
        {
            tracing::error!(%error, "failed to start a guard");
        }
    }

    fn start_guard(
        &mut self,
        share: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<OwnedFd> {
        if let Some(mut gone) = self.guard_process.take() {
            let _status = gone.try_wait();
        }
        let Holdings { group, journal, .. } = &self.holdings;
        let (group, journal) = (group.as_fd(), journal.as_fd());
        let (line, child) = guard::spawn(self.layout, &self.executable, group, journal, share)?;
        self.guard_process = Some(child);
        let line = self.holdings.guard.insert(line);
        if let Some(store) = self.store.as_ref().filter(|_| self.is_stored) {
            store.put_guard(line.as_fd());
        }
        line.try_clone()
    }

    /// The line to the guard; a guard is started if there is none.
    fn guard(&mut self) -> io::Result<OwnedFd> {
        if let Some(line) = self
            .holdings
            .guard
            .as_ref()
            .filter(|line| guard::is_there(line))
        {
            return line.try_clone();
        }
        self.start_guard(|_| Ok(()))
    }

    fn hand_over(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let guard = self.guard()?;
        let Holdings {
            lock,
            group,
            journal,
            listener,
            devices,
            fresh,
            lingers,
            ..
        } = &self.holdings;
        let descriptors = [
            group.as_fd(),
            journal.as_fd(),
            listener.as_fd(),
            lock.as_fd(),
            guard.as_fd(),
        ];
        handover::send_start(socket, (*fresh, *lingers), descriptors)?;
        handover::send_devices(socket, devices.iter())?;
        handover::send_to_worker(socket, &ToWorker::Serve)
    }

    /// Starts a worker and serves it until it ends.
    fn run_worker(&mut self) -> Result<Turn, KeeperError> {
        self.served = false;
        let mut worker = match self.spawn() {
            Ok(worker) => worker,
            Err(error) => {
                tracing::error!(%error, "failed to start a worker");
                self.failures += 1;
                return Ok(Turn::Again);
            }
        };
        self.failures += 1;
        if let Err(error) = self.hand_over(worker.socket.as_fd()) {
            tracing::error!(%error, "failed to hand over to the worker");
            let _ending = worker.child.kill();
        }
        self.keep_by_manager();
        match self.serve(&mut worker)? {
            Turn::Leave => Ok(Turn::Leave),
            _ if self.quit => Ok(Turn::End),
            _ => Ok(Turn::Again),
        }
    }

    /// Gives the service manager all that is held. It may have nothing any more after a new start of the service,
    /// which comes with an upgrade; else once is enough.
    fn keep_by_manager(&mut self) {
        if let Some(store) = self.store.as_mut().filter(|_| !self.is_stored) {
            store.put_all(&self.holdings);
        }
        self.is_stored = true;
    }

    /// Gives `Leave`, or `Again` when the worker has ended.
    fn serve(&mut self, worker: &mut Worker) -> Result<Turn, KeeperError> {
        let deadline = Instant::now() + TRIAL;
        loop {
            let on_trial = self.previous.is_some() && !self.served;
            if on_trial && Instant::now() >= deadline {
                let _ending = worker.child.kill();
            }
            let [ended, message, signal, unguarded] =
                self.wait(worker, on_trial.then_some(deadline))?;
            if unguarded && !ended {
                self.replace_guard(worker);
            }
            // Messages first: a worker that has died may have said something before.
            match message.then(|| self.receive(worker)) {
                Some(Turn::Again) => continue,
                Some(Turn::Leave) => return Ok(Turn::Leave),
                Some(Turn::End) | None => {}
            }
            if message {
                // It has hung up. One that is still alive serves nobody any more.
                let _ending = worker.child.kill();
            }
            if message || ended {
                let status = worker.child.wait().map_err(failed("wait for the worker"))?;
                tracing::info!(%status, quit = self.quit, "the worker ended");
                return Ok(Turn::Again);
            }
            if signal {
                let mut drain = [0; 16];
                let _count = rustix::io::read(&self.signals, &mut drain);
                // A worker that can't be told is dying; the signal is asked for again then.
                let _told = handover::send_to_worker(worker.socket.as_fd(), &ToWorker::Stop);
            }
        }
    }

    /// Waits for the worker's end, a message, a signal or the guard's end, and says which it is.
    fn wait(&self, worker: &Worker, until: Option<Instant>) -> Result<[bool; 4], KeeperError> {
        let mut fds = [
            PollFd::new(&worker.pidfd, PollFlags::IN),
            PollFd::new(&worker.socket, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
            // Only its end is waited for. Without a guard: asked about twice.
            PollFd::new(
                self.holdings.guard.as_ref().unwrap_or(&self.signals),
                PollFlags::empty(),
            ),
        ];
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(fds.map(|fd| !fd.revents().is_empty())),
            Err(errno) => Err(failed("wait for the worker")(errno.into())),
        }
    }

    /// Takes one message. `End`: there will be no more.
    fn receive(&mut self, worker: &mut Worker) -> Turn {
        let message = match handover::receive_from_worker(worker.socket.as_fd()) {
            Ok(Received::Message(message)) => message,
            Ok(Received::Unknown) => return Turn::Again,
            Ok(Received::End) => return Turn::End,
            Err(error) => {
                tracing::error!(%error, "a worker's message could not be understood");
                return Turn::End;
            }
        };
        match message {
            ToKeeper::Serving => {
                self.failures = 0;
                self.served = true;
                self.previous = None;
                self.holdings.fresh = false;
                self.holdings.lingers = false;
                if let Some(store) = &self.store {
                    store.ready();
                }
            }
            ToKeeper::Hold(key, fd) => {
                // A key that is held keeps its first descriptor: that one was open before the mark.
                let held = self.holdings.devices.entry(key).or_insert(fd);
                if let Some(store) = &mut self.store {
                    store.put_device(&key, held.as_fd());
                }
                // If this fails, the worker is gone and asks again when it is back.
                let _told = handover::send_to_worker(worker.socket.as_fd(), &ToWorker::Held);
            }
            ToKeeper::Release(key) => {
                self.holdings.devices.remove(&key);
                if let Some(store) = &mut self.store {
                    store.remove_device(&key);
                }
            }
            ToKeeper::Quit => self.quit = true,
            ToKeeper::Busy => {
                tracing::warn!("not stopping: something is mounted and in use");
                if let Some(store) = &self.store {
                    // A manager that waits in vain kills. The worker goes on without it, until this is started
                    // again as a service.
                    store.leaving();
                    return Turn::Leave;
                }
            }
            ToKeeper::Upgrade(executable) => {
                let before = std::mem::replace(&mut self.executable, executable);
                self.previous.get_or_insert(before);
                self.is_stored = false;
            }
        }
        Turn::Again
    }

    fn delay(&self) {
        let Some(excess) = self.failures.checked_sub(EAGER_RESTARTS) else {
            return;
        };
        let delay = Duration::from_millis(100).saturating_mul(1 << excess.min(8));
        std::thread::sleep(delay.min(RESTART_DELAY_MAX));
    }
}
