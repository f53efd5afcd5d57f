//! The `/dev/fuse` descriptor of one connection.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;
use zerocopy::IntoBytes as _;

use super::protocol::{NOTIFY_RESEND, RawAnswer};

/// One end of a connection; the kernel is the other.
#[derive(Debug)]
pub(super) struct Device {
    fd: OwnedFd,
}

/// What came from the kernel.
pub(super) enum Taken {
    /// A request of that many bytes.
    Request(usize),
    /// There is none at the moment.
    Nothing,
    /// The filesystem is gone.
    Unmounted,
}

impl Device {
    /// A connection whose descriptor doesn't block. This goes for all processes that have it, which is fine: all of
    /// them do the same.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(Self { fd })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Takes a request if there is one.
    pub(super) fn take(&self, buffer: &mut [u8]) -> io::Result<Taken> {
        loop {
            return match rustix::io::read(&self.fd, &mut *buffer) {
                Ok(len) => Ok(Taken::Request(len)),
                Err(Errno::AGAIN) => Ok(Taken::Nothing),
                Err(Errno::NODEV) => Ok(Taken::Unmounted),
                // NOENT: whoever asked gave up while we were reading.
                Err(Errno::INTR | Errno::NOENT) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Answers a request; an error needs no body.
    pub(super) fn answer(&self, unique: u64, result: Result<&[u8], Errno>) {
        let (error, body) = match result {
            Ok(body) => (0, body),
            Err(error) => (-error.raw_os_error(), &[][..]),
        };
        if let Err(error) = self.send(unique, error, body) {
            match error {
                // Whoever asked gave up, or the request was handed out again and answered already, or the
                // filesystem is gone: nobody waits for this.
                Errno::NOENT | Errno::NODEV => tracing::trace!(unique, "an answer came too late"),
                _ => tracing::error!(unique, %error, "the kernel refused an answer"),
            }
        }
    }

    /// Asks for everything to be handed out again that was taken and not answered.
    ///
    /// # Errors
    /// `Unsupported` before Linux 6.9; `EPERM` when nothing was mounted with the descriptor.
    pub(super) fn ask_again(&self) -> io::Result<()> {
        match self.send(0, NOTIFY_RESEND, &[]) {
            // The filesystem is gone; whoever takes the next request will notice.
            Ok(()) | Err(Errno::NODEV) => Ok(()),
            Err(Errno::INVAL) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this kernel can't hand out FUSE requests again: needs Linux 6.9",
            )),
            Err(error) => Err(error.into()),
        }
    }

    fn send(&self, unique: u64, error: i32, body: &[u8]) -> Result<(), Errno> {
        let len = size_of::<RawAnswer>() + body.len();
        let header = RawAnswer {
            len: u32::try_from(len).map_err(|_| Errno::MSGSIZE)?,
            error,
            unique,
        };
        let parts = [IoSlice::new(header.as_bytes()), IoSlice::new(body)];
        // It is taken as a whole or not at all.
        rustix::io::writev(&self.fd, &parts).map(|_written| ())
    }
}
