//! The protocol's numbers and structures, as far as a read-only server needs them.
//!
//! Origin: Linux `include/uapi/linux/fuse.h`, protocol 7.31 (Linux 5.4) to 7.45. Integers are in the order of
//! the machine, since both sides are on it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The protocol's version: this major number has been the only one for two decades.
pub(super) const MAJOR: u32 = 7;
/// The minor version whose structures we know.
pub(super) const MINOR: u32 = 38;
/// The oldest minor version we serve: Linux 5.4, where opening directories needs no message.
pub(super) const MINOR_MIN: u32 = 31;

/// What we are asked to do.
pub(super) mod opcode {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const READLINK: u32 = 5;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const SETXATTR: u32 = 21;
    pub(crate) const GETXATTR: u32 = 22;
    pub(crate) const LISTXATTR: u32 = 23;
    pub(crate) const REMOVEXATTR: u32 = 24;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const RELEASEDIR: u32 = 29;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const NOTIFY_REPLY: u32 = 41;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const FALLOCATE: u32 = 43;
    pub(crate) const READDIRPLUS: u32 = 44;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const COPY_FILE_RANGE: u32 = 47;
    pub(crate) const TMPFILE: u32 = 51;
}

/// Abilities that kernel and server agree on.
pub(super) mod flag {
    /// Several reads of one file at a time.
    pub(crate) const ASYNC_READ: u64 = 1;
    /// Listing a directory tells the attributes too.
    pub(crate) const DO_READDIRPLUS: u64 = 1 << 13;
    /// But only if somebody asks for them.
    pub(crate) const READDIRPLUS_AUTO: u64 = 1 << 14;
    /// Refusing OPEN with ENOSYS means that no file needs it; its pages stay cached.
    pub(crate) const NO_OPEN_SUPPORT: u64 = 1 << 17;
    /// Several lookups and listings in one directory at a time.
    pub(crate) const PARALLEL_DIROPS: u64 = 1 << 18;
    /// `max_pages` counts.
    pub(crate) const MAX_PAGES: u64 = 1 << 22;
    /// Targets of symbolic links are cached.
    pub(crate) const CACHE_SYMLINKS: u64 = 1 << 23;
    /// Refusing OPENDIR with ENOSYS means that no directory needs it; its list stays cached.
    pub(crate) const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    /// The upper half of the flags counts.
    pub(crate) const INIT_EXT: u64 = 1 << 30;
    /// Requests can be handed out again.
    pub(crate) const HAS_RESEND: u64 = 1 << 39;
}

/// The code of the message that asks for unanswered requests to be handed out again.
pub(super) const NOTIFY_RESEND: i32 = 7;
/// The bit of a request's number that says that it was handed out before. The answer carries it too.
pub(super) const UNIQUE_RESEND: u64 = 1 << 63;

/// Defines structures that come from or go to the kernel.
macro_rules! raw {
    ($($(#[$about:meta])* $name:ident: $bytes:literal { $($field:ident: $kind:ty,)* })*) => {$(
        $(#[$about])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
        pub(super) struct $name { $(pub(super) $field: $kind,)* }
        const _: () = assert!(size_of::<$name>() == $bytes);
    )*};
}

raw! {
    /// Before every request.
    RawRequest: 40 {
        len: u32, opcode: u32, unique: u64, inode: u64, uid: u32, gid: u32, pid: u32, extensions: u16,
        padding: u16,
    }
    /// Before every answer.
    RawAnswer: 16 { len: u32, error: i32, unique: u64, }
    RawInitIn: 16 { major: u32, minor: u32, readahead_max: u32, flags: u32, }
    RawInitOut: 64 {
        major: u32, minor: u32, readahead_max: u32, flags: u32, background_max: u16, congestion: u16,
        write_max: u32, time_granularity: u32, pages_max: u16, map_alignment: u16, flags_upper: u32,
        rest: [u32; 7],
    }
    RawReadIn: 40 {
        handle: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    }
    RawXattrIn: 8 { size: u32, padding: u32, }
    RawXattrOut: 8 { size: u32, padding: u32, }
    RawOpenOut: 16 { handle: u64, flags: u32, padding: u32, }
    RawAttributes: 88 {
        inode: u64, bytes: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64, atime_nanos: u32,
        mtime_nanos: u32, ctime_nanos: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32,
        block_bytes: u32, flags: u32,
    }
    RawEntryOut: 128 {
        inode: u64, generation: u64, entry_valid: u64, attributes_valid: u64, entry_valid_nanos: u32,
        attributes_valid_nanos: u32, attributes: RawAttributes,
    }
    RawAttributesOut: 104 { valid: u64, valid_nanos: u32, padding: u32, attributes: RawAttributes, }
    RawDirEntry: 24 { inode: u64, next: u64, name_len: u32, kind: u32, }
    RawStatFsOut: 80 {
        blocks: u64, free: u64, available: u64, files: u64, files_free: u64, block_bytes: u32,
        name_max: u32, fragment_bytes: u32, padding: u32, spare: [u32; 6],
    }
}
