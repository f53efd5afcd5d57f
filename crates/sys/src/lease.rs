//! Leases, to learn whether anybody else has a file open, the kernel included.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Whether the file is open through no other open file than this one. See `F_SETLEASE` in `fcntl(2)`: a
/// write lease is only given when nobody else has the file open; it is given back at once.
///
/// # Errors
/// What `fcntl` says: `EACCES` when the file belongs to somebody else and `CAP_LEASE` is missing.
pub fn is_sole_opener(file: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: takes integers and touches no memory of ours; the descriptor is borrowed for the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
    if result == 0 {
        // SAFETY: as above.
        let given_back = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
        debug_assert!(given_back == 0, "a lease that was given can be given back");
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock {
        Ok(false)
    } else {
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_second_opener_is_noticed_and_so_is_its_end() {
        let scratch = tempfile::NamedTempFile::new().unwrap();
        let path = scratch.path().to_path_buf();
        let (file, keep) = scratch.into_parts();
        drop(file);
        let ours = std::fs::OpenOptions::new().read(true).open(&path).unwrap();
        assert!(is_sole_opener(ours.as_fd()).unwrap());
        let other = std::fs::OpenOptions::new().read(true).open(&path).unwrap();
        assert!(!is_sole_opener(ours.as_fd()).unwrap());
        drop(other);
        assert!(is_sole_opener(ours.as_fd()).unwrap());
        drop(keep);
    }
}
