//! Answers, each of which is given exactly once.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::device::Device;

/// Errors that the kernel takes from us are below this; others are its own.
const ERRNO_END: i32 = 512;

/// The duty to answer one request. Dropped without, it answers `EIO`: a bug must not let anybody wait for ever.
#[derive(Debug)]
pub(super) struct Reply {
    device: Arc<Device>,
    unique: u64,
    is_due: bool,
}

impl Reply {
    pub(super) fn new(device: Arc<Device>, unique: u64) -> Self {
        Self {
            device,
            unique,
            is_due: true,
        }
    }

    pub(super) fn send(mut self, result: Result<&[u8], Errno>) {
        self.is_due = false;
        self.device.answer(self.unique, result);
    }

    /// The request is of a kind that gets no answer.
    pub(super) fn none(mut self) {
        self.is_due = false;
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.is_due {
            self.device.answer(self.unique, Err(Errno::IO));
        }
    }
}

/// The duty to answer one read. Dropped without, it answers `EIO`.
#[derive(Debug)]
pub struct ReadReply {
    reply: Reply,
    size: usize,
}

impl ReadReply {
    pub(super) fn new(reply: Reply, size: usize) -> Self {
        Self { reply, size }
    }

    /// The bytes: exactly as many as were asked for. Another number is a bug, and answers `EIO`:
    /// the kernel takes fewer bytes for the end of the file, and readers would see zeros.
    pub fn data(self, bytes: &[u8]) {
        let (expected, got) = (self.size, bytes.len());
        if got == expected {
            self.reply.send(Ok(bytes));
        } else {
            tracing::error!(expected, got, "a read was answered with a wrong length");
            self.reply.send(Err(Errno::IO));
        }
    }

    /// An error, whose errno the reader sees.
    pub fn fail(self, error: &io::Error) {
        self.reply.send(Err(errno(error)));
    }
}

/// The errno that says it best.
pub(super) fn errno(error: &io::Error) -> Errno {
    if let Some(number) = error.raw_os_error() {
        return if (1..ERRNO_END).contains(&number) {
            Errno::from_raw_os_error(number)
        } else {
            Errno::IO
        };
    }
    match error.kind() {
        io::ErrorKind::NotFound => Errno::NOENT,
        io::ErrorKind::PermissionDenied => Errno::ACCESS,
        io::ErrorKind::NotADirectory => Errno::NOTDIR,
        io::ErrorKind::IsADirectory => Errno::ISDIR,
        io::ErrorKind::InvalidInput => Errno::INVAL,
        io::ErrorKind::Unsupported => Errno::OPNOTSUPP,
        io::ErrorKind::OutOfMemory => Errno::NOMEM,
        io::ErrorKind::StorageFull => Errno::NOSPC,
        io::ErrorKind::StaleNetworkFileHandle => Errno::STALE,
        io::ErrorKind::TimedOut => Errno::TIMEDOUT,
        _ => Errno::IO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_keep_their_errno_if_the_kernel_would_take_it() {
        #[track_caller]
        fn check(error: impl Into<io::Error>, expect: Errno) {
            assert_eq!(errno(&error.into()), expect);
        }
        check(Errno::STALE, Errno::STALE);
        check(fs_err::read("/nowhere/at/all").unwrap_err(), Errno::NOENT);
        check(io::Error::from_raw_os_error(512), Errno::IO);
        check(io::Error::from_raw_os_error(-5), Errno::IO);
        check(io::ErrorKind::NotFound, Errno::NOENT);
        check(io::ErrorKind::UnexpectedEof, Errno::IO);
        check(io::Error::other("words"), Errno::IO);
    }
}
