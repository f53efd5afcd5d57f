//! Memory that outlives the process that writes it: which events were taken and not yet answered.
//!
//! The keeper holds the memory (a memfd); a worker maps it. Events are *read into* it, so there is no
//! moment at which the kernel has handed one out and no trace of it exists.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

/// Bytes of an area that events are read into: 85 events of 48 bytes, as many as a burst brings.
pub const AREA_BYTES: usize = 4096;
/// Areas, and so threads that may read events at once.
pub const AREAS: usize = 8;
/// Descriptor numbers that the table has room for: more than `RLIMIT_NOFILE` gives us anywhere that we know.
pub const NUMBERS: usize = 1 << 16;

const ENTRY_WORDS: usize = 4;
const ENTRIES_START: usize = AREAS * AREA_BYTES;
const JOURNAL_BYTES: usize = ENTRIES_START + NUMBERS * ENTRY_WORDS * 8;

const FREE: u64 = 0;
const PENDING: u64 = 1;

/// An event that was taken and not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// The number under which the group remembers it.
    pub descriptor: i32,
    /// The inode that is about to be read.
    pub inode: u64,
    /// First byte about to be read.
    pub offset: u64,
    /// Bytes about to be read.
    pub count: u64,
}

/// The mapped memory.
#[derive(Debug)]
pub struct Journal {
    fd: OwnedFd,
    start: *mut u8,
}

// SAFETY: the memory is only touched through atomics and by the kernel; the pointer never changes.
unsafe impl Send for Journal {}
// SAFETY: as above: shared access is atomic.
unsafe impl Sync for Journal {}

impl Drop for Journal {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size; no reference outlives `self`.
        let result = unsafe { rustix::mm::munmap(self.start.cast(), JOURNAL_BYTES) };
        debug_assert!(result.is_ok(), "the journal was mapped");
    }
}

impl Journal {
    /// New memory, all zeros.
    ///
    /// # Errors
    /// What `memfd_create`, `ftruncate` and `mmap` say.
    pub fn create() -> io::Result<Self> {
        let fd = rustix::fs::memfd_create("draught-journal", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&fd, JOURNAL_BYTES as u64)?;
        Self::map(fd)
    }

    /// The memory behind a descriptor that another process passed on.
    ///
    /// # Errors
    /// `InvalidData` when it has another size; what `mmap` says.
    pub fn map(fd: OwnedFd) -> io::Result<Self> {
        let bytes = rustix::fs::fstat(&fd)?.st_size;
        if usize::try_from(bytes) != Ok(JOURNAL_BYTES) {
            let text = format!("the journal has {bytes} bytes, expected {JOURNAL_BYTES}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let null = std::ptr::null_mut();
        // SAFETY: a new shared mapping at an address of the kernel's choice, of the file's size.
        let start =
            unsafe { rustix::mm::mmap(null, JOURNAL_BYTES, protection, MapFlags::SHARED, &fd, 0)? };
        Ok(Self {
            fd,
            start: start.cast(),
        })
    }

    /// The descriptor, to pass it on.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The area of that index.
    ///
    /// # Panics
    /// If there are not so many: a bug of the caller.
    #[must_use]
    pub fn area(&self, index: usize) -> Area<'_> {
        assert!(index < AREAS, "area {index} of {AREAS}");
        // SAFETY: inside the mapping, since `index` is below AREAS.
        let start = unsafe { self.start.add(index * AREA_BYTES) };
        Area {
            start,
            journal: PhantomData,
        }
    }

    fn word(&self, number: usize, word: usize) -> &AtomicU64 {
        assert!(
            number < NUMBERS && word < ENTRY_WORDS,
            "entry {number} of {NUMBERS}"
        );
        let at = ENTRIES_START + (number * ENTRY_WORDS + word) * 8;
        // SAFETY: inside the mapping, since `number` and `word` were checked.
        let pointer = unsafe { self.start.add(at) };
        // SAFETY: aligned (page-aligned mapping, multiple of 8), mapped for as long as `self`, and only
        // ever accessed as this atomic.
        unsafe { AtomicU64::from_ptr(pointer.cast()) }
    }

    /// Notes an event as taken. `false`: its number is beyond the table and can't be noted.
    #[must_use]
    pub fn note(&self, event: &Pending) -> bool {
        let Some(number) = usize::try_from(event.descriptor)
            .ok()
            .filter(|n| *n < NUMBERS)
        else {
            return false;
        };
        self.word(number, 1).store(event.inode, Ordering::Relaxed);
        self.word(number, 2).store(event.offset, Ordering::Relaxed);
        self.word(number, 3).store(event.count, Ordering::Relaxed);
        self.word(number, 0).store(PENDING, Ordering::Release);
        true
    }

    /// Forgets an event: it was answered. To be called before its descriptor is closed, after which the
    /// number may come again.
    pub fn forget(&self, descriptor: i32) {
        if let Some(number) = usize::try_from(descriptor)
            .ok()
            .filter(|number| *number < NUMBERS)
        {
            self.word(number, 0).store(FREE, Ordering::Release);
        }
    }

    /// Whether an event of that number is noted.
    #[must_use]
    pub fn is_noted(&self, descriptor: i32) -> bool {
        usize::try_from(descriptor)
            .ok()
            .filter(|number| *number < NUMBERS)
            .is_some_and(|number| self.word(number, 0).load(Ordering::Acquire) == PENDING)
    }

    /// All events that are noted, by number.
    #[must_use]
    pub fn pending(&self) -> Vec<Pending> {
        (0..NUMBERS)
            .filter(|number| self.word(*number, 0).load(Ordering::Acquire) == PENDING)
            .filter_map(|number| {
                Some(Pending {
                    descriptor: i32::try_from(number).ok()?,
                    inode: self.word(number, 1).load(Ordering::Relaxed),
                    offset: self.word(number, 2).load(Ordering::Relaxed),
                    count: self.word(number, 3).load(Ordering::Relaxed),
                })
            })
            .collect()
    }
}

/// A part of the journal that one thread reads events into.
#[derive(Debug)]
pub struct Area<'a> {
    start: *mut u8,
    journal: PhantomData<&'a Journal>,
}

impl Area<'_> {
    pub(crate) fn start(&self) -> *mut u8 {
        self.start
    }

    pub(crate) fn len(&self) -> usize {
        AREA_BYTES
    }

    fn bytes(&self) -> &[AtomicU8] {
        // SAFETY: the area is mapped for as long as the journal, and atomics may be shared; the kernel
        // writes it only inside `read`, called by the thread that owns the area.
        unsafe { std::slice::from_raw_parts(self.start.cast(), AREA_BYTES) }
    }

    /// A copy of its first `len` bytes.
    #[must_use]
    pub fn copy(&self, len: usize) -> Vec<u8> {
        self.bytes()
            .iter()
            .take(len)
            .map(|byte| byte.load(Ordering::Acquire))
            .collect()
    }

    /// A copy of all of it.
    #[must_use]
    pub fn copy_all(&self) -> Vec<u8> {
        self.copy(AREA_BYTES)
    }

    /// Zeros its first `len` bytes: the events in it are noted.
    pub fn clear(&self, len: usize) {
        for byte in self.bytes().iter().take(len) {
            byte.store(0, Ordering::Release);
        }
    }

    /// Zeros all of it.
    pub fn clear_all(&self) {
        self.clear(AREA_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_mapping_notes_another_sees() {
        let journal = Journal::create().unwrap();
        let other = Journal::map(journal.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let event = Pending {
            descriptor: 9,
            inode: 5,
            offset: 4096,
            count: 100,
        };
        assert!(journal.note(&event));
        assert_eq!(other.pending(), [event]);
        assert!(other.is_noted(9));
        other.forget(9);
        assert_eq!(journal.pending(), []);
    }

    #[test]
    fn numbers_beyond_the_table_are_not_noted() {
        let journal = Journal::create().unwrap();
        for descriptor in [-1, 1 << 16, i32::MAX] {
            assert!(!journal.note(&Pending {
                descriptor,
                inode: 0,
                offset: 0,
                count: 0
            }));
        }
    }

    #[test]
    fn memory_of_another_size_is_refused() {
        let fd = rustix::fs::memfd_create("other", MemfdFlags::CLOEXEC).unwrap();
        assert!(Journal::map(fd).is_err());
    }
}
