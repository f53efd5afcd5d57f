//! What a service manager is told, and what it keeps: systemd's protocol of notifications.
//!
//! Origin: `sd_notify(3)`, `sd_listen_fds(3)` and "File Descriptor Store" (systemd.io/FILE_DESCRIPTOR_STORE), as of
//! systemd 252.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{inherit, scm};

/// Names the manager's socket.
const SOCKET: &str = "NOTIFY_SOCKET";
/// How many descriptors this process was started with, which process that is, and how they are called.
pub const LISTEN: [&str; 3] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];
/// The number of the first of them.
const FIRST: i32 = 3;
/// More than a manager ever keeps: what the variable says beyond is not believed.
const DESCRIPTORS_MAX: i32 = 1 << 20;
/// How long a manager may leave a message lying: whoever sends has others to serve.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it may take until it has read all.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);

/// Tells a service manager. A clone tells the same one.
#[derive(Debug, Clone)]
pub struct Notifier {
    address: SocketAddr,
}

impl Notifier {
    /// The manager that started this process, if one did that wants to be told.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        let name = env::var_os(SOCKET).filter(|name| !name.is_empty())?;
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&name),
        };
        Some(Self {
            address: address.ok()?,
        })
    }

    /// Sends one message: lines of `NAME=value`, with descriptors.
    ///
    /// # Errors
    /// When the manager is not there, or does not read.
    pub fn send(&self, message: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        // Each time anew: the socket may be another one since.
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.connect_addr(&self.address)?;
        scm::send(socket.as_fd(), message.as_bytes(), descriptors)
    }

    /// Waits until all that was sent before has been read: of who is gone before that, a manager may not know
    /// whose message it was.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn flush(&self) -> io::Result<()> {
        let flags = rustix::pipe::PipeFlags::CLOEXEC;
        let (ours, theirs) = rustix::pipe::pipe_with(flags)?;
        self.send("BARRIER=1", &[theirs.as_fd()])?;
        drop(theirs);
        let mut fds = [PollFd::new(&ours, PollFlags::IN)];
        let patience = Timespec::try_from(FLUSH_PATIENCE).ok();
        match poll(&mut fds, patience.as_ref()) {
            Ok(0) => Err(io::ErrorKind::TimedOut.into()),
            result => result.map(drop).map_err(Into::into),
        }
    }
}

/// Takes the descriptors that a manager started this process with, and their names. To be called once, before
/// anything else of this process uses their numbers.
#[must_use]
pub fn take_descriptors() -> Vec<(String, OwnedFd)> {
    let [count, pid, names] = LISTEN.map(|name| env::var_os(name).unwrap_or_default());
    let number = |text: &OsString| text.to_str()?.parse::<i32>().ok();
    // Else they were for who started us.
    let is_for_us =
        number(&pid).and_then(|pid| u32::try_from(pid).ok()) == Some(std::process::id());
    let count = number(&count).filter(|_| is_for_us).unwrap_or(0);
    let names = String::from_utf8(names.into_vec()).unwrap_or_default();
    let mut names = names.split(':');
    let mut taken = Vec::new();
    for number in FIRST..FIRST.saturating_add(count.clamp(0, DESCRIPTORS_MAX)) {
        let name = names.next().unwrap_or("unknown").to_owned();
        // One that is not open is none.
        taken.extend(inherit::take(number).map(|fd| (name, fd)));
    }
    taken
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn messages_arrive_with_their_descriptors_and_a_flush_waits_for_the_reader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier {
            address: SocketAddr::from_pathname(&path).unwrap(),
        };
        let (ours, theirs) = UnixStream::pair().unwrap();
        notifier
            .send("FDSTORE=1\nFDNAME=x", &[theirs.as_fd()])
            .unwrap();
        drop(theirs);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            let (len, mut descriptors) = scm::receive(manager.as_fd(), &mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"FDSTORE=1\nFDNAME=x");
            let kept = descriptors.remove(0);
            let (len, barrier) = scm::receive(manager.as_fd(), &mut buffer).unwrap();
            assert_eq!((&buffer[..len], barrier.len()), (&b"BARRIER=1"[..], 1));
            drop(barrier);
            rustix::io::write(&kept, b"kept").unwrap();
        });
        notifier.flush().unwrap();
        reader.join().unwrap();
        let mut text = String::new();
        let mut ours = ours;
        ours.read_to_string(&mut text).unwrap();
        assert_eq!(text, "kept");
        drop(dir);
        assert!(notifier.send("READY=1", &[]).is_err());
    }
}
