//! Files whose content stays in memory.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::mm::{MapFlags, ProtFlags};

/// A file's first bytes, kept in the page cache for as long as this lives: whoever else reads them, the
/// kernel's filesystems included, does not wait for a disk.
#[derive(Debug)]
pub struct Resident {
    start: *mut u8,
    bytes: usize,
}

// SAFETY: the memory is never touched by us; the pointer is only kept to unmap it.
unsafe impl Send for Resident {}
// SAFETY: as above.
unsafe impl Sync for Resident {}

impl Resident {
    /// Reads them and keeps them.
    ///
    /// # Errors
    /// What `mmap` and `mlock` say: an ordinary user may lock a few MiB only.
    pub fn new(file: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        let null = std::ptr::null_mut();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start =
            unsafe { rustix::mm::mmap(null, bytes, ProtFlags::READ, MapFlags::SHARED, file, 0)? };
        let resident = Self {
            start: start.cast(),
            bytes,
        };
        // SAFETY: the mapping was just made with this size.
        unsafe { rustix::mm::mlock(start, bytes)? };
        Ok(resident)
    }

    /// How many bytes are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this size; nobody has a reference into it.
        let result = unsafe { rustix::mm::munmap(self.start.cast(), self.bytes) };
        debug_assert!(result.is_ok(), "it was mapped");
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn what_is_resident_is_in_memory_and_let_go_of_afterwards() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let locked = || {
            let file = std::fs::OpenOptions::new()
                .read(true)
                .open("/proc/self/status");
            let status = std::io::read_to_string(file.unwrap()).unwrap();
            let line = status.lines().find(|line| line.starts_with("VmLck:"));
            let number = line.unwrap().split_whitespace().nth(1).unwrap().to_owned();
            number.parse::<u64>().unwrap()
        };
        let before = locked();
        let resident = Resident::new(file.as_fd(), 1 << 20).unwrap();
        assert_eq!((locked() - before, resident.bytes()), (1024, 1 << 20));
        drop(resident);
        assert_eq!(locked(), before);
    }
}
