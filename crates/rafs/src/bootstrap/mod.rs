//! Bootstraps: the metadata of an image, or of one of its layers.
//!
//! A bootstrap is an EROFS image with two names for everything: the kernel's EROFS driver and nydus' own
//! readers take the same inodes, directories and chunk indexes, but nydus also reads what stands around them:
//!
//! ```text
//! 1024   EROFS superblock, 128 bytes, with a bit that says RAFS v6
//! 1152   extended superblock, 256 bytes: algorithms, chunk size, where the tables are
//! 1408   device slots, 128 bytes a blob
//!        blob table, 256 bytes a blob, 4 KiB aligned
//!        prefetch table, 4 bytes an inode number
//!        inodes, directories (4 KiB aligned; inode numbers count from one block before)
//!        chunk table, 80 bytes a chunk, 4 KiB aligned
//! ```
//!
//! [`write()`] writes one; [`Reader`] reads untrusted ones and says which ranges of which blobs it needs
//! besides (tables of blobs with batches). Both do no I/O.
//!
//! Origin: `dragonflyoss/nydus` 2.2 to 2.4, `rafs/src/metadata/layout/v6.rs`, `direct_v6.rs`,
//! `builder/src/core/v6.rs`. The kernel must accept every bootstrap written here, and `nydus-image check` too.

mod blob_entry;
mod chunk_entry;
mod extended;
mod raw;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{Bootstrap, Limits, Need, ReadError, Reader};
pub use write::{Input, Options, Summary, WriteError, chunk_indexes_in_order, write};

/// Blobs of an image, at most: chunk indexes have 8 bits for them, and two values mean something else.
pub const BLOBS_MAX: usize = 254;
/// Chunks of a blob, at most: chunk indexes have 24 bits for them.
pub const CHUNKS_MAX: u32 = 1 << 24;
/// Bytes of a blob's device, at most: 2^32 blocks.
pub const DEVICE_BYTES_MAX: u64 = 1 << 44;
/// Stored bytes of a blob, at most: chunk-info tables have 40 bits for an offset.
pub const STORED_BYTES_MAX: u64 = 1 << 40;
/// The smallest chunk size.
pub const CHUNK_BYTES_MIN: u32 = 4 << 10;
/// The largest chunk size.
pub const CHUNK_BYTES_MAX: u32 = 16 << 20;
