//! The guard: a third process, asleep until both others are gone.
//!
//! It holds the fanotify group and nothing else, and one end of a line whose other end keeper and worker
//! both hold. When the line breaks, nobody serves the mounts any more, and nobody can take their place.
//! Then it takes the mounts away and fails every read of what is missing, for as long as anybody uses
//! them: an error instead of the zeros that the kernel would hand out.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use draught_mount::{Listener, mountinfo};
use draught_sys::fanotify::Group;
use draught_sys::journal::Journal;
use draught_sys::scm;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::keeper::{self, KeeperError, WithoutListen as _, set_name};
use crate::layout::Layout;
use crate::mounts::{is_covered, is_mounted};
use crate::sessions;
use crate::state::{State, boot_id};

/// How often the guard looks whether anybody still uses the mounts.
const PATIENCE: Duration = Duration::from_secs(1);

/// Says that others take the mounts away.
const LOST: &[u8] = b"L";

/// Starts a guard; gives the line to it, and its process. `share` gets the line before the guard is there,
/// to give it to whoever else must hold it.
pub(crate) fn spawn(
    layout: &Layout,
    executable: &OwnedFd,
    group: BorrowedFd<'_>,
    journal: BorrowedFd<'_>,
    share: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
) -> io::Result<(OwnedFd, Child)> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // Before the guard is there: one that is there knows all that it needs, whoever dies next.
    scm::send(ours.as_fd(), b"G", &[group, journal])?;
    share(ours.as_fd())?;
    let child = Command::new(format!("/proc/self/fd/{}", executable.as_raw_fd()))
        .arg0("draught")
        .arg("--root")
        .arg(layout.root())
        .args(["daemon", "--guard"])
        .without_listen()
        .stdin(Stdio::from(theirs))
        .process_group(0)
        .spawn()?;
    tracing::debug!(pid = child.id(), "guarded");
    Ok((ours, child))
}

/// Whether the guard at the other end is there.
pub(crate) fn is_there(line: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(line, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(poll(&mut fds, Some(&now)), Ok(0))
}

/// Tells the guard that all is well and that it may go: nothing is mounted any more.
pub(crate) fn dismiss(line: &OwnedFd) {
    if let Err(error) = scm::send(line.as_fd(), b"B", &[]) {
        tracing::debug!(%error, "the guard was gone already");
    }
}

/// Tells a guard that what it guards is lost, and that others look after the directory tree: it only sends away
/// whoever reads.
pub(crate) fn abandon(line: &OwnedFd) {
    if let Err(error) = scm::send(line.as_fd(), LOST, &[]) {
        tracing::debug!(%error, "the guard was gone already");
    }
}

/// Runs a guard. Its standard input is the line.
///
/// # Errors
/// What the kernel says.
pub fn run(layout: &Layout) -> io::Result<()> {
    set_name(c"draught-guard");
    let line = io::stdin().as_fd().try_clone_to_owned()?;
    let mut buffer = [0; 8];
    let (_, descriptors) = scm::receive(line.as_fd(), &mut buffer)?;
    let [group, journal] = <[OwnedFd; 2]>::try_from(descriptors)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let (len, _) = scm::receive(line.as_fd(), &mut buffer)?;
    let message = buffer.get(..len).unwrap_or_default();
    let is_lost = message == LOST;
    if !message.is_empty() && !is_lost {
        return Ok(());
    }
    tracing::error!("keeper and worker are both gone: taking their mounts away");
    let listener = Listener::new(
        Arc::new(Group::from_fd(group)),
        Arc::new(Journal::map(journal)?),
    );
    // A daemon that was started in the meantime takes them away itself, and what is listed then may be its
    // own mounts already. While the lock is held here, it waits.
    let images = match keeper::lock(layout) {
        Ok(_lock) if !is_lost => take_away(layout)?,
        Ok(_) => listed(layout)?,
        Err(KeeperError::Running { .. }) => listed(layout)?,
        Err(error) => return Err(io::Error::other(error)),
    };
    if !listener.raises_events() {
        // Without the two, reads fail by themselves.
        return Ok(());
    }
    // Whoever waits for an answer, or comes later, gets an error.
    let mut reads = listener.recover().map_err(io::Error::other)?;
    loop {
        for read in reads {
            listener
                .answer(&read, Err(io::ErrorKind::Other))
                .map_err(io::Error::other)?;
        }
        // A file that can't be asked for is nobody's any more.
        if !images
            .iter()
            .any(|image| draught_mount::is_in_use(image).unwrap_or(false))
        {
            return Ok(());
        }
        reads = listener.take(0, PATIENCE).map_err(io::Error::other)?;
    }
}

/// Detaches all mounts that are listed, and gives the files of their metadata images.
fn take_away(layout: &Layout) -> io::Result<Vec<PathBuf>> {
    let Some(state) = State::load(layout, &boot_id()?)? else {
        return Ok(Vec::new());
    };
    let infos = mountinfo()?;
    for record in state.mounts.iter().filter(|record| !record.detached) {
        if !is_mounted(&infos, record) || is_covered(&infos, record) {
            continue;
        }
        let dir = record.dir.display();
        match sessions::detach(record) {
            Ok(()) => tracing::error!(%dir, "detached: mount it again"),
            Err(error) => {
                tracing::error!(%dir, error, "could not be detached; reads of it fail");
            }
        }
    }
    let files = state.mounts.into_iter().map(|record| record.metadata);
    Ok(files.collect())
}

/// The files of the metadata images that are listed.
fn listed(layout: &Layout) -> io::Result<Vec<PathBuf>> {
    let state = State::load(layout, &boot_id()?)?;
    let records = state.into_iter().flat_map(|state| state.mounts);
    Ok(records.map(|record| record.metadata).collect())
}
