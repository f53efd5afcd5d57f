//! What is served.

use std::io;

use super::answer::ReadReply;

/// The inode number of the root directory, which the protocol prescribes.
pub const ROOT: u64 = 1;

/// A tree of files, or one directory of them.
///
/// Inodes are known by numbers of its own, never 0; the root's is [`ROOT`]. They must mean the same in
/// every process that serves one mount, and must not be given to another file while it is mounted:
/// the kernel remembers them, and so do readers. Content of a file never changes.
///
/// Methods are called by several threads at a time and must not wait for anything that needs the mount.
/// The `errno` of an error reaches whoever asked; errors without one are translated by their kind.
pub trait Files: Send + Sync + 'static {
    /// Whether nothing that was said will ever change: then the kernel remembers names, their absence,
    /// lists and attributes. Otherwise it asks again each time, files can be added and can grow.
    fn is_final(&self) -> bool {
        true
    }

    /// What `name` in directory `parent` is.
    ///
    /// # Errors
    /// `NotFound` if there is no such name, which the kernel remembers too.
    fn lookup(&self, parent: u64, name: &[u8]) -> io::Result<Attributes>;

    /// What an inode is.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    fn attributes(&self, inode: u64) -> io::Result<Attributes>;

    /// Gives the entries of a directory to `add`, which returns whether it wants another, from the one on
    /// that follows `offset`: 0 is the beginning, others are what [`DirEntry::next`] said. `.` and `..` are
    /// expected.
    ///
    /// # Errors
    /// `NotADirectory`, for instance.
    fn list(
        &self,
        inode: u64,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> io::Result<()>;

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// `InvalidInput` if it is none.
    fn target(&self, inode: u64) -> io::Result<Vec<u8>>;

    /// The value of an extended attribute.
    ///
    /// # Errors
    /// `NotFound` if the inode has none of that name; `Unsupported` if no inode has any, and the kernel will
    /// never ask again.
    fn xattr(&self, inode: u64, name: &[u8]) -> io::Result<Vec<u8>> {
        let _unused = (inode, name);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The names of all extended attributes of an inode.
    ///
    /// # Errors
    /// As [`Self::xattr`].
    fn xattr_names(&self, inode: u64) -> io::Result<Vec<Vec<u8>>> {
        let _unused = inode;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Asks for bytes of a file: all of `size` bytes from `offset` on are within it. The answer may be
    /// given later and by another thread. Whoever waits for it may be gone by then; that is no error.
    fn read(&self, inode: u64, offset: u64, size: u32, reply: ReadReply);

    /// What `df` shows.
    fn totals(&self) -> Totals {
        Totals::default()
    }
}

/// What an inode is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Its number.
    pub inode: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Type and permissions as in `st_mode`.
    pub mode: u32,
    /// Names that it has.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Major and minor number of a device node.
    pub rdev: (u32, u32),
    /// Seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds.
    pub mtime_nanos: u32,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// What it names.
    pub inode: u64,
    /// The offset that continues after this entry; never 0.
    pub next: u64,
    /// As in `st_mode`; only the type counts.
    pub mode: u32,
    /// The name.
    pub name: &'a [u8],
}

/// How much is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of content.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}
