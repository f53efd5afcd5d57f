//! This crate is tar and pax archives, decoded into tree entries and encoded from them.
//!
//! Origin: POSIX.1-2017 `pax` (ustar and pax interchange formats); the GNU tar 1.34 manual, "Tar
//! Internals" (long names, base-256 numbers, sparse files 0.0, 0.1, 1.0 and the old one); star's
//! `SCHILY.*` and libarchive's `LIBARCHIVE.xattr.*` keywords. Where these leave room, what the
//! unpackers of containers do (umoci and containerd, both on Go's `archive/tar`) decides:
//!
//! * An archive ends at two blocks of zeros, or at the end of the stream between two entries (one
//!   block of zeros before it is fine). What follows the two blocks is ignored. A lone block of
//!   zeros with more after it is an error, as in Go; GNU tar warns and stops there.
//! * Directories, links, devices and pipes have no data, whatever their size field says. An old
//!   regular file (typeflag NUL) whose name ends in a slash is a directory; one with typeflag `0` is
//!   not, as in Go (GNU tar takes it for one).
//! * Unknown typeflags are refused, as umoci and containerd do. GNU tar's old sparse files (`S`)
//!   and contiguous files (`7`), which those two refuse as well, are read as GNU tar reads them.
//! * A pax value that is empty takes back a global one, except for an extended attribute, whose
//!   value may be empty (containerd and GNU tar agree; umoci drops such an attribute).
//! * Global pax headers count (POSIX, GNU tar), while containerd ignores and umoci refuses them;
//!   those that would name or size every file alike are refused.
//! * `LIBARCHIVE.xattr.*` counts where no `SCHILY.xattr.*` of that name is there. Access control
//!   lists in star's text form (`SCHILY.acl.*`), `RHT.security.selinux`, user and group names, access
//!   and change times are ignored, as both unpackers ignore them; [`Extra`] has them for those who pass
//!   them on.
//! * In a hard link's entry only name and target count: the inode has the metadata of its first name.
//!
//! [`Reader`] decodes, [`Writer`] encodes; both stream and hold no file's content. Verification:
//! the reader refuses what it can't read to the letter; chunk and layer digests are checked above.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

mod body;
mod error;
mod extra;
mod header;
mod input;
mod number;
mod pax;
mod reader;
mod sparse;
#[cfg(test)]
mod tests;
mod writer;

pub use error::{Limits, TarError, WriteError};
pub use extra::{Extra, PaxRecords};
pub use reader::{Data, Reader};
pub use writer::Writer;

/// Bytes in a block: headers are one block, data is padded to blocks.
pub const BLOCK_BYTES: usize = 512;
