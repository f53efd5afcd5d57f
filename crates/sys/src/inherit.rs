//! Descriptors that came through `exec`.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

/// Takes ownership of a descriptor that the process was started with. It is closed on the next `exec`.
///
/// # Errors
/// `EBADF` when the number is not open; `InvalidInput` for the standard streams.
pub fn take(number: i32) -> io::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: only used to ask the kernel whether the number is open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and the caller says that it was passed through `exec` for this purpose, so
    // nothing else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
