//! Why a bootstrap can't be read.

use draught_digest::Digest;

use crate::blob::{ChunkTableError, TocError, UnsupportedFeatures};

/// Why a bootstrap can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It has something that we do not read.
    #[error("the image has {what}, which is not supported")]
    Unsupported {
        /// What it has.
        what: &'static str,
    },
    /// Its superblock has flags that are not known here.
    #[error("the image has features that are not known here: flags {bits:#x}")]
    Flags {
        /// The flags that are not known.
        bits: u64,
    },
    /// It is an EROFS image, but no bootstrap.
    #[error("no RAFS v6 bootstrap: the EROFS superblock does not say that it is one")]
    NotRafs,
    /// A superblock is malformed.
    #[error("the superblock can't be: {problem}")]
    Superblock {
        /// What is wrong.
        problem: &'static str,
    },
    /// A blob of the table can't be, or is not supported.
    #[error("blob {index} can't be used: {problem}")]
    Blob {
        /// Which, from 0.
        index: u32,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A blob has features that we do not read.
    #[error("blob {index} can't be used")]
    BlobFeatures {
        /// Which, from 0.
        index: u32,
        /// Which features.
        #[source]
        source: UnsupportedFeatures,
    },
    /// A chunk of the chunk table can't be.
    #[error("chunk {index} of blob {blob} can't be: {problem}")]
    Chunk {
        /// The blob, from 0.
        blob: u32,
        /// The chunk's index in its blob's table.
        index: u32,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The content of a file can't be.
    #[error("the content of inode {nid} can't be: {problem}")]
    Content {
        /// The inode's number.
        nid: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// More of something than the limits allow.
    #[error("{value} {what}, the limit is {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        value: u64,
        /// How much there may be.
        limit: u64,
    },
    /// Inodes or directories can't be read.
    #[error("the image's metadata can't be read")]
    Metadata(#[from] draught_erofs::ReadError),
    /// A blob's table of contents can't be read.
    #[error("the table of contents of blob {blob} can't be read")]
    Toc {
        /// The blob.
        blob: Digest,
        /// Why not.
        #[source]
        source: Box<TocError>,
    },
    /// A blob's table of contents is not the one that the bootstrap speaks of.
    #[error("the table of contents of blob {blob} is not that of the bootstrap")]
    TocDigest {
        /// The blob.
        blob: Digest,
    },
    /// A blob's chunk-info table can't be read.
    #[error("the chunk-info table of blob {blob} can't be read")]
    ChunkInfo {
        /// The blob.
        blob: Digest,
        /// Why not.
        #[source]
        source: ChunkTableError,
    },
    /// A range of a blob was not given.
    #[error("bytes {start} to {end} of blob {blob} are needed and were not given")]
    Missing {
        /// The blob.
        blob: Digest,
        /// Where the range begins.
        start: u64,
        /// Where it ends.
        end: u64,
    },
}
