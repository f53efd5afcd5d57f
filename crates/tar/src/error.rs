//! Limits and errors.

use std::io;

/// What an archive may ask for. The defaults say why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one extended header (pax, or GNU's long name or link), and of all global ones that
    /// are in force. 1 MiB, the limit of Go and of libarchive: an archive that has more can't be
    /// read by anyone else.
    pub extended_bytes_max: usize,
    /// Bytes of a path or of a link's target. 4096, `PATH_MAX` of Linux.
    pub name_bytes_max: usize,
    /// Bytes of all extended attributes of an entry, names included. 128 KiB: Linux allows 64 KiB a
    /// value, ext4 and EROFS hold less than twice that in an inode.
    pub xattr_bytes_max: usize,
    /// Pieces of data in a sparse file. 2^20: they take 16 MiB here, and 4 GiB of file at least
    /// when every other block is a hole.
    pub sparse_pieces_max: usize,
    /// Bytes of a file. 16 TiB, what ext4 and a device with 2^32 blocks can hold.
    pub file_bytes_max: u64,
    /// Bytes of all holes in the archive's sparse files: zeros that come out though nothing went
    /// in. 64 GiB take some ten seconds to write at the speed of memory.
    pub hole_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            extended_bytes_max: 1 << 20,
            name_bytes_max: 4096,
            xattr_bytes_max: 128 << 10,
            sparse_pieces_max: 1 << 20,
            file_bytes_max: 16 << 40,
            hole_bytes_max: 64 << 30,
        }
    }
}

/// Why an archive can't be read. `offset` is a position in the (decompressed) archive in bytes: that
/// of the header at fault, unless said otherwise.
///
/// All but [`TarError::Io`] mean that the archive itself is at fault: reading it again won't help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// Where the archive is read from failed.
    #[error("reading the archive failed at byte {offset}")]
    Io {
        /// How far it was read.
        offset: u64,
        /// What happened.
        source: io::Error,
    },
    /// The archive ends too early.
    #[error("the archive ends at byte {offset}, in the middle of {what}: it was cut off")]
    Truncated {
        /// Where it ends.
        offset: u64,
        /// What is incomplete.
        what: &'static str,
    },
    /// Something else than a header is where one should be.
    #[error(
        "no tar header at byte {offset}: the checksum is wrong; the archive is damaged, or it is none"
    )]
    Checksum {
        /// Where.
        offset: u64,
    },
    /// A block of zeros, and then something else than a second one.
    #[error("the block of zeros at byte {offset} is not followed by a second one")]
    LoneZeroBlock {
        /// Where the block of zeros is.
        offset: u64,
    },
    /// A number is none, or is out of its range.
    #[error("header at byte {offset}: {field} is {value:?}, which is no number in its range")]
    Number {
        /// Where.
        offset: u64,
        /// The field's or keyword's name.
        field: &'static str,
        /// What it holds, cut off after 32 bytes.
        value: String,
    },
    /// A pax header breaks its syntax or says what it must not.
    #[error("pax header at byte {offset}: {problem}")]
    Pax {
        /// Where.
        offset: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A sparse file's map contradicts itself, its file or the format.
    #[error("sparse file at byte {offset}: {problem}")]
    Sparse {
        /// Where.
        offset: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Something is larger than the [`Limits`] allow.
    #[error("header at byte {offset}: {what} is {value}, the limit is {limit}")]
    TooLarge {
        /// Where.
        offset: u64,
        /// What is too large.
        what: &'static str,
        /// How large it is, as far as it was looked at.
        value: u64,
        /// How large it may be.
        limit: u64,
    },
    /// An entry of a kind that we don't know or that no image has.
    #[error("entry {path:?} at byte {offset} has the unknown type {flag:?}")]
    Type {
        /// Where.
        offset: u64,
        /// The typeflag.
        flag: char,
        /// The entry's path.
        path: String,
    },
    /// A symbolic link without a target.
    #[error("symbolic link {path:?} at byte {offset} has no target")]
    NoTarget {
        /// Where.
        offset: u64,
        /// The entry's path.
        path: String,
    },
    /// The archive ends after an extended header, before the entry that it speaks of.
    #[error("the archive ends at byte {offset}, after an extended header without its entry")]
    Dangling {
        /// Where it ends.
        offset: u64,
    },
    /// Reading failed before: where the next entry begins is not known.
    #[error("the archive can't be read on after an earlier error")]
    AfterError,
}

/// Why an entry can't be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Where the archive goes to failed.
    #[error("writing the archive failed at byte {offset}")]
    Io {
        /// How much was written.
        offset: u64,
        /// What happened.
        source: io::Error,
    },
    /// Tar has no sockets.
    #[error("{path:?} is a socket, which a tar archive can't hold: leave it out")]
    Socket {
        /// The entry's path.
        path: String,
    },
    /// A name is empty, or holds a NUL byte.
    #[error("the {what} of {path:?} is empty or has a NUL byte in it")]
    Name {
        /// The entry's path.
        path: String,
        /// Which name.
        what: &'static str,
    },
    /// An extended attribute's name is empty, has a `=` or a NUL in it.
    #[error("{path:?} has an extended attribute {name:?}, a name that pax can't express")]
    Xattr {
        /// The entry's path.
        path: String,
        /// The attribute's name.
        name: String,
    },
    /// More or less data than the entry said.
    #[error("the file before byte {offset} was to have {bytes_left} bytes more, not {bytes}")]
    Size {
        /// How much was written.
        offset: u64,
        /// How many bytes are still to come.
        bytes_left: u64,
        /// How many were given: none at the next entry or the end.
        bytes: u64,
    },
}
