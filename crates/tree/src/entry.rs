//! Entries: what a layer says, one path at a time.

use crate::chunk::ChunkId;

/// Extended attributes, sorted by name, each name once: `(name, value)`.
pub type Xattrs = Vec<(Box<[u8]>, Box<[u8]>)>;

/// What every inode has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits with set-user-id, set-group-id and sticky: `0o7777` at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, in seconds since 1970, negative before.
    pub mtime: i64,
    /// Nanoseconds of the modification time, below 1,000,000,000.
    pub mtime_nsec: u32,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Size in bytes.
        bytes: u64,
        /// Its content in order: every chunk but the last has the file's chunk size. Empty until
        /// the content is known (a packer fills it in).
        chunks: Box<[ChunkId]>,
    },
    /// A symbolic link and its target, as it is.
    Symlink(Box<[u8]>),
    /// Another name of the entry at this path of the image (of this layer or a lower one).
    HardLink(Box<[u8]>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// One entry of a layer. Whiteouts are entries whose last component begins with `.wh.`, as OCI has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path as the layer has it; not necessarily UTF-8, normalized by [`crate::Tree::apply`].
    pub path: Box<[u8]>,
    /// Mode, owner, times and extended attributes.
    pub meta: Meta,
    /// What it is.
    pub kind: EntryKind,
}
