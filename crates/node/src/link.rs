//! The worker's end of the line to its keeper.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use draught_mount::{Listener, Read};
use draught_sys::fanotify::Group;
use draught_sys::journal::Journal;
use parking_lot::Mutex;
use rustix::fs::MemfdFlags;

use crate::descriptor_store::DescriptorStore;
use crate::handover::{self, Key, Received, ToKeeper, ToWorker};
use crate::keeper::{Holdings, KeeperError};
use crate::layout::Layout;

/// What a worker gets to begin with.
#[derive(Debug)]
pub(crate) struct Inheritance {
    pub(crate) fresh: bool,
    /// Whether an earlier group may still be alive, with marks on devices.
    pub(crate) lingers: bool,
    pub(crate) events: Listener,
    /// What earlier workers took and did not answer.
    pub(crate) stale: Vec<Read>,
    pub(crate) control: OwnedFd,
    pub(crate) devices: BTreeMap<Key, OwnedFd>,
    pub(crate) link: Link,
}

/// The line itself. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub(crate) struct Link {
    socket: OwnedFd,
    holdings: Mutex<Estate>,
    held: Mutex<Receiver<()>>,
    acknowledge: SyncSender<()>,
}

/// What would be left if both processes were gone: copies of what the keeper holds.
#[derive(Debug)]
struct Estate {
    group: OwnedFd,
    journal: OwnedFd,
    listener: OwnedFd,
    lock: OwnedFd,
    guard: OwnedFd,
    devices: BTreeMap<Key, OwnedFd>,
}

fn unexpected(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

/// What the first message brings.
struct Beginning {
    flags: (bool, bool),
    events: Listener,
    stale: Vec<Read>,
    control: OwnedFd,
    estate: Estate,
}

/// Receives from the keeper, on the standard input, all that a worker needs to begin.
pub(crate) fn inherit() -> io::Result<Inheritance> {
    // More descriptors come than the usual limit allows.
    draught_sys::limits::raise_open_files();
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let mut beginning = None;
    let mut devices = BTreeMap::new();
    loop {
        match handover::receive_from_keeper(socket.as_fd())? {
            Received::End => return Err(unexpected("the keeper hung up")),
            Received::Message(ToWorker::Start {
                fresh,
                lingers,
                descriptors,
            }) => {
                beginning = Some(begin((fresh, lingers), descriptors)?);
            }
            Received::Message(ToWorker::Devices(batch)) => devices.extend(batch),
            Received::Message(ToWorker::Serve) => break,
            _ => {}
        }
    }
    let Beginning {
        flags: (fresh, lingers),
        events,
        stale,
        control,
        mut estate,
    } = beginning.ok_or_else(|| unexpected("the keeper sent no descriptors"))?;
    for (key, fd) in &devices {
        estate.devices.insert(*key, fd.try_clone()?);
    }
    let (acknowledge, held) = sync_channel(1);
    let link = Link {
        socket,
        holdings: Mutex::new(estate),
        held: Mutex::new(held),
        acknowledge,
    };
    Ok(Inheritance {
        fresh,
        lingers,
        events,
        stale,
        control,
        devices,
        link,
    })
}

/// Takes the journal up. At once, while this process has no descriptors but those that it keeps to its end:
/// the numbers of unanswered events must not be given out again, and one that something else has now must
/// not become free while its event waits.
fn begin(
    flags: (bool, bool),
    descriptors: [OwnedFd; handover::START_DESCRIPTORS],
) -> io::Result<Beginning> {
    let [group, journal, control, lock, guard] = descriptors;
    let estate = Estate {
        group: group.try_clone()?,
        journal: journal.try_clone()?,
        listener: control.try_clone()?,
        lock,
        guard,
        devices: BTreeMap::new(),
    };
    let (group, journal) = (Group::from_fd(group), Journal::map(journal)?);
    let events = Listener::new(Arc::new(group), Arc::new(journal));
    let stale = events.recover().map_err(io::Error::other)?;
    Ok(Beginning {
        flags,
        events,
        stale,
        control,
        estate,
    })
}

impl Link {
    /// Tells the keeper that this worker serves.
    pub(crate) fn serving(&self) -> io::Result<()> {
        handover::send_to_keeper(self.socket.as_fd(), &ToKeeper::Serving)
    }

    /// Gives the keeper a device's descriptor to hold, and returns when it does.
    pub(crate) fn hold(&self, key: Key, fd: BorrowedFd<'_>) -> io::Result<()> {
        let held = self.held.lock();
        self.holdings
            .lock()
            .devices
            .insert(key, fd.try_clone_to_owned()?);
        let copy = fd.try_clone_to_owned()?;
        handover::send_to_keeper(self.socket.as_fd(), &ToKeeper::Hold(key, copy))?;
        held.recv().map_err(|_| unexpected("the keeper is gone"))
    }

    /// Tells the keeper to let go of a device.
    pub(crate) fn release(&self, key: &Key) -> io::Result<()> {
        self.holdings.lock().devices.remove(key);
        handover::send_to_keeper(self.socket.as_fd(), &ToKeeper::Release(*key))
    }

    /// Tells the keeper to stop when this process has ended.
    pub(crate) fn quit(&self) -> io::Result<()> {
        handover::send_to_keeper(self.socket.as_fd(), &ToKeeper::Quit)
    }

    /// Tells the keeper that it can't stop.
    pub(crate) fn busy(&self) -> io::Result<()> {
        handover::send_to_keeper(self.socket.as_fd(), &ToKeeper::Busy)
    }

    /// Tells the keeper which executable the next worker is to be.
    pub(crate) fn upgrade(&self, executable: OwnedFd) -> io::Result<()> {
        handover::send_to_keeper(self.socket.as_fd(), &ToKeeper::Upgrade(executable))
    }

    /// Listens to the keeper for as long as it lives; `stop` is called when it asks to stop. When it
    /// hangs up, this process becomes the keeper.
    pub(crate) fn listen(&self, layout: &Layout, stop: impl Fn()) -> io::Error {
        loop {
            match handover::receive_from_keeper(self.socket.as_fd()) {
                // Nobody waits if a worker before this one asked.
                Ok(Received::Message(ToWorker::Held)) => {
                    let _nobody_waits = self.acknowledge.try_send(());
                }
                Ok(Received::Message(ToWorker::Stop)) => stop(),
                Ok(Received::Message(ToWorker::Guard(line))) => {
                    // Under the old one's number, which must not become free.
                    let mut holdings = self.holdings.lock();
                    let flags = rustix::io::DupFlags::CLOEXEC;
                    if let Err(errno) = rustix::io::dup3(&line, &mut holdings.guard, flags) {
                        tracing::error!(%errno, "the line to the new guard is lost");
                    }
                }
                Ok(Received::End) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(%error, "the keeper could not be understood");
                    break;
                }
            }
        }
        tracing::error!("the keeper is gone: this worker takes its place");
        self.succeed(layout)
    }

    /// Replaces this process by a keeper that holds what the last one held. Only returns if that fails.
    fn succeed(&self, layout: &Layout) -> io::Error {
        let estate = self.holdings.lock();
        match will(&estate) {
            Ok(will) => Command::new("/proc/self/exe")
                .arg0("draught")
                .arg("--root")
                .arg(layout.root())
                .args(["daemon", "--adopt", &will.as_raw_fd().to_string()])
                .exec(),
            Err(error) => error,
        }
    }
}

/// Lets a descriptor live through `exec`.
fn keep(fd: &OwnedFd) -> io::Result<i32> {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
    Ok(fd.as_raw_fd())
}

/// Writes down which descriptor is what, for the process that this one becomes.
fn will(estate: &Estate) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("draught-will", MemfdFlags::empty())?;
    let mut file = File::from(fd);
    for (what, fd) in [
        ("group", &estate.group),
        ("journal", &estate.journal),
        ("listener", &estate.listener),
        ("lock", &estate.lock),
        ("guard", &estate.guard),
    ] {
        writeln!(file, "{what} {}", keep(fd)?)?;
    }
    for (key, fd) in &estate.devices {
        let key = draught_digest::Digest::new(draught_digest::Algorithm::Sha256, *key);
        writeln!(file, "{key} {}", keep(fd)?)?;
    }
    Ok(file.into())
}

/// Runs a keeper on the will of a worker whose keeper died.
///
/// # Errors
/// [`KeeperError`].
pub fn adopt(
    layout: &Layout,
    will: i32,
    environment: &[(&'static str, String)],
) -> Result<(), KeeperError> {
    let holdings = read_will(will).map_err(|source| KeeperError::Io {
        what: "take over from the keeper that died",
        source,
    })?;
    let store = DescriptorStore::of_generation(layout);
    crate::keeper::run_with(layout, holdings, store, environment)
}

fn read_will(will: i32) -> io::Result<Holdings> {
    use std::io::{Read as _, Seek as _};
    let mut file = File::from(draught_sys::inherit::take(will)?);
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    let mut named = BTreeMap::new();
    let mut devices = BTreeMap::new();
    for line in text.lines() {
        let (what, number) = line
            .split_once(' ')
            .ok_or_else(|| unexpected("a torn will"))?;
        let number = number.parse().map_err(|_| unexpected("a torn will"))?;
        let fd = draught_sys::inherit::take(number)?;
        match what.parse::<draught_digest::Digest>() {
            Ok(key) => drop(devices.insert(*key.as_bytes(), fd)),
            Err(_) => drop(named.insert(what.to_owned(), fd)),
        }
    }
    let mut take = |what: &str| named.remove(what).ok_or_else(|| unexpected("a torn will"));
    Ok(Holdings {
        lock: take("lock")?.into(),
        group: Group::from_fd(take("group")?),
        journal: Journal::map(take("journal")?)?,
        listener: take("listener")?,
        guard: Some(take("guard")?),
        devices,
        fresh: false,
        lingers: false,
    })
}
