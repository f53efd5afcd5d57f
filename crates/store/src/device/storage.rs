//! The seam to the disk, small enough to be simulated.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// One file.
///
/// Every order in which an implementation may lose things in a crash is one that `Blocks` has to stand:
/// what was written since the last successful [`sync_data`](Self::sync_data) may be lost in any part and
/// in any order when the machine dies, and nothing of it is lost when only the process does.
pub(crate) trait Storage: fmt::Debug + Send + Sync {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buf` from `offset`; an error of kind `UnexpectedEof` if the file ends before.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`. After an error, any part of them may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts or grows the file; what is new reads as zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Gives back the space of these bytes, which are whole blocks within the file: they read as zeros, and
    /// the file keeps its length. As for what a crash or an error leaves it is a write of zeros. An error of
    /// kind `Unsupported` where the filesystem can't: then nothing was done.
    fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()>;

    /// Makes durable what was written before the call: bytes, length, and the file's name.
    ///
    /// After an error nothing is known of what was written since the last success, now or ever: a second
    /// call that succeeds proves nothing.
    fn sync_data(&self) -> io::Result<()>;
}

/// A file in the directory of devices.
#[derive(Debug)]
pub(crate) struct FileStorage {
    file: File,
    dir: Arc<File>,
    /// Whether the directory was synchronized since this file was opened. It may have been created just
    /// before, also by a process that died.
    name_is_durable: AtomicBool,
    /// A file that must be durable before anything that speaks of this one is.
    companion: Option<PathBuf>,
}

impl FileStorage {
    /// `file`, whose name is in `dir`.
    pub(crate) fn new(file: File, dir: Arc<File>) -> Self {
        Self {
            file,
            dir,
            name_is_durable: AtomicBool::new(false),
            companion: None,
        }
    }

    /// With another file that is made durable with this one for the first time, if it is there: what a
    /// device's map says is of no use without its table.
    pub(crate) fn with_companion(self, path: PathBuf) -> Self {
        Self {
            companion: Some(path),
            ..self
        }
    }
}

impl AsFd for FileStorage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Storage for FileStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let punch = || rustix::fs::fallocate(&self.file, flags, offset, bytes);
        match rustix::io::retry_on_intr(punch) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(io::ErrorKind::Unsupported.into()),
            other => Ok(other?),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()?;
        if !self.name_is_durable.load(Ordering::Acquire) {
            match self.companion.as_ref().map(fs_err::File::open) {
                Some(Ok(companion)) => companion.sync_data()?,
                Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.dir.sync_all()?;
            self.name_is_durable.store(true, Ordering::Release);
        }
        Ok(())
    }
}
