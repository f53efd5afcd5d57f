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
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use draught_mount::Listener;
use draught_sys::fanotify::Group;
use draught_sys::journal::Journal;
use draught_sys::scm;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::keeper::set_name;
use crate::layout::Layout;
use crate::state::{State, boot_id};

/// How often the guard looks whether anybody still uses the mounts.
const PATIENCE: Duration = Duration::from_secs(1);

/// Starts a guard and gives the line to it.
pub(crate) fn spawn(
    layout: &Layout,
    executable: &OwnedFd,
    group: BorrowedFd<'_>,
    journal: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // Never waited for: it outlives its parent, and init takes it then.
    let child = Command::new(format!("/proc/self/fd/{}", executable.as_raw_fd()))
        .arg0("draught")
        .arg("--root")
        .arg(layout.root())
        .args(["daemon", "--guard"])
        .stdin(Stdio::from(theirs))
        .process_group(0)
        .spawn()?;
    tracing::debug!(pid = child.id(), "guarded");
    scm::send(ours.as_fd(), b"G", &[group, journal])?;
    Ok(ours)
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
    if len > 0 {
        return Ok(());
    }
    tracing::error!("keeper and worker are both gone: taking their mounts away");
    let listener = Listener::new(
        Arc::new(Group::from_fd(group)),
        Arc::new(Journal::map(journal)?),
    );
    let images = take_away(layout)?;
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
    for record in state.mounts.iter().filter(|record| !record.detached) {
        let dir = record.dir.display();
        match draught_mount::detach(&record.dir) {
            Ok(()) => tracing::error!(%dir, "detached: mount it again"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(%dir, error, "could not be detached; reads of it fail");
            }
        }
    }
    Ok(state
        .mounts
        .into_iter()
        .map(|record| record.metadata)
        .collect())
}
