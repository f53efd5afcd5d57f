//! Facts about a blob.

use draught_digest::{Algorithm, DIGEST_BYTES, Digest};
use draught_tree::{BlobOffset, Compression};

use super::features::BlobFeatures;

/// How a blob is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobOptions {
    /// How its extents are compressed, and its tables.
    pub compression: Compression,
    /// How its chunks are digested.
    pub digester: Algorithm,
    /// The size in bytes that files are cut into; a power of two from 4 KiB to 16 MiB.
    pub chunk_bytes_max: u32,
    /// Whether extents may hold several chunks. nydus 2.3 and later read such blobs.
    pub batches: bool,
}

/// Where the chunk-info table is and how it is stored; the chunk-info header follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkInfoRange {
    /// Where the table begins.
    pub offset: BlobOffset,
    /// Its stored size in bytes, without the header.
    pub stored_bytes: u64,
    /// Its decoded size in bytes.
    pub decoded_bytes: u64,
    /// How it is stored.
    pub compression: Compression,
}

/// The table of contents, its tar header included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TocRange {
    /// Its size in bytes; it ends where the blob ends.
    pub bytes: u32,
    /// Its SHA-256.
    pub sha256: [u8; DIGEST_BYTES],
}

/// What a bootstrap's blob table says of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// The blob's digest, whose 64 digits are its id. `None` where it isn't known: in the bootstrap
    /// that a blob itself holds.
    pub digest: Option<Digest>,
    /// What it has.
    pub features: BlobFeatures,
    /// How its extents are compressed.
    pub compression: Compression,
    /// How its chunks are digested.
    pub digester: Algorithm,
    /// The size in bytes that files are cut into.
    pub chunk_bytes_max: u32,
    /// How many chunks it has.
    pub chunks: u32,
    /// The stored size of the whole blob, in bytes.
    pub stored_bytes: u64,
    /// The size of its device, in bytes: all chunks decoded, each padded to a block.
    pub device_bytes: u64,
    /// Where its chunk-info table is.
    pub chunk_info: ChunkInfoRange,
    /// Its table of contents.
    pub toc: Option<TocRange>,
}
