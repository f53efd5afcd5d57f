//! How an image is to be packed.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use draught_codec::{LEVEL_DEFAULT, LayerLimits};
use draught_digest::Algorithm;
use draught_tree::Compression;

use crate::dictionary::{Dictionary, DictionaryError};

/// Threads that compress, at most. More do not help: reading and digesting a layer is one thread's work.
const THREADS_MAX: usize = 16;

/// The smallest size that files may be cut into, in bytes: a block.
pub const CHUNK_BYTES_MIN: u32 = 4 << 10;
/// The largest size that files may be cut into, in bytes: what the format can express.
pub const CHUNK_BYTES_MAX: u32 = 16 << 20;

/// How an image is to be packed. Whatever of it changes the output is part of any cache key; threads and
/// the spool directory do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackOptions {
    /// How chunks are compressed.
    pub compression: Compression,
    /// The level, for zstd.
    pub level: i32,
    /// How chunks are digested.
    pub digester: Algorithm,
    /// The size in bytes that files are cut into: a power of two from [`CHUNK_BYTES_MIN`] to
    /// [`CHUNK_BYTES_MAX`].
    pub chunk_bytes: u32,
    /// The decoded size in bytes of batches, the extents that small files share: a power of two from
    /// [`CHUNK_BYTES_MIN`] to `chunk_bytes`, or 0 for none.
    ///
    /// None by default: batches came with nydus 2.3. An older nydusd, such as 2.2, refuses the whole
    /// image because of a feature bit that it does not know, and the images that we write are to be
    /// readable by every deployed one. Where 2.3 or later is certain, batches of 128 KiB make images
    /// of small files smaller by a tenth and more.
    pub batch_bytes: u32,
    /// Whether each blob holds a bootstrap of its layer alone: what tools need that take layers apart
    /// or put them together anew. No reader of images needs it.
    pub layer_bootstraps: bool,
    /// Paths of files that a start of the image reads, in that order: they become its prefetch table, which
    /// readers fetch before anybody asks. What the image does not have is left out.
    pub prefetch: Vec<Vec<u8>>,
    /// Images whose chunks are not stored again. Of chunks that several have, those of the first are used.
    pub dictionaries: Vec<Arc<Dictionary>>,
    /// Threads that compress.
    pub threads: NonZeroUsize,
    /// Where blobs lie until they are pushed: unlinked files, so nothing is left after a crash.
    pub spool_dir: PathBuf,
    /// What a layer may ask for as a stream.
    pub layer_limits: LayerLimits,
    /// What it may ask for as an archive.
    pub tar_limits: draught_tar::Limits,
    /// What the image may ask for as a tree.
    pub tree_limits: draught_tree::Limits,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self {
            compression: Compression::Zstd,
            level: LEVEL_DEFAULT,
            digester: Algorithm::Blake3,
            chunk_bytes: 1 << 20,
            batch_bytes: 0,
            layer_bootstraps: true,
            prefetch: Vec::new(),
            dictionaries: Vec::new(),
            threads: std::thread::available_parallelism()
                .unwrap_or(NonZeroUsize::MIN)
                .min(NonZeroUsize::MIN.saturating_add(THREADS_MAX - 1)),
            spool_dir: std::env::temp_dir(),
            layer_limits: LayerLimits::default(),
            tar_limits: draught_tar::Limits::default(),
            tree_limits: draught_tree::Limits::default(),
        }
    }
}

/// Why options can't be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// The chunk size.
    #[error("the chunk size is {bytes} bytes; it must be a power of two from 4 KiB to 16 MiB")]
    ChunkBytes {
        /// What was asked for.
        bytes: u32,
    },
    /// The batch size.
    #[error(
        "the batch size is {bytes} bytes; it must be 0 (none) or a power of two from 4 KiB to the \
         chunk size, which is {chunk_bytes}"
    )]
    BatchBytes {
        /// What was asked for.
        bytes: u32,
        /// The chunk size.
        chunk_bytes: u32,
    },
    /// Chunks of 16 MiB and batches.
    #[error(
        "chunks of 16 MiB and batches exclude each other: a table with batches can't express a \
         chunk of that size that does not compress; choose chunks of 8 MiB"
    )]
    Both,
    /// A compression that nobody writes.
    #[error("{compression:?} is not written: choose zstd, lz4 or none")]
    Compression {
        /// What was asked for.
        compression: Compression,
    },
    /// The gzip level.
    #[error("the gzip level is {level}; it must be from 1 to 12")]
    GzipLevel {
        /// What was asked for.
        level: u32,
    },
    /// The chunk size of eStargz.
    #[error(
        "the chunk size is {bytes} bytes; for eStargz it must be a multiple of 4 KiB, 16 MiB at most"
    )]
    EstargzChunkBytes {
        /// What was asked for.
        bytes: u64,
    },
    /// The size of members that small files share.
    #[error("small files are to share {bytes} bytes; it must be 0 (none) or 16 MiB at most")]
    EstargzPackBytes {
        /// What was asked for.
        bytes: u64,
    },
    /// Something that only nydus images can have.
    #[error("{what} is for nydus images only, and the format is {format}")]
    NydusOnly {
        /// What.
        what: &'static str,
        /// The format that was asked for.
        format: &'static str,
    },
    /// The zstd level.
    #[error("the zstd level is {level}; it must be from 1 to 22")]
    Level {
        /// What was asked for.
        level: i32,
    },
    /// Too large dictionaries.
    #[error("all dictionaries together have more than 2^32 chunks; use fewer")]
    Dictionaries,
    /// A dictionary.
    #[error("dictionary {number} can't be used", number = index + 1)]
    Dictionary {
        /// Which, from 0.
        index: usize,
        /// Why not.
        source: DictionaryError,
    },
}

impl PackOptions {
    /// Checks that an image can be packed like this.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn check(&self) -> Result<(), OptionsError> {
        let chunk_bytes = self.chunk_bytes;
        let sizes = CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX;
        if !chunk_bytes.is_power_of_two() || !sizes.contains(&chunk_bytes) {
            return Err(OptionsError::ChunkBytes { bytes: chunk_bytes });
        }
        let bytes = self.batch_bytes;
        let batches = CHUNK_BYTES_MIN..=chunk_bytes;
        if bytes != 0 && (!bytes.is_power_of_two() || !batches.contains(&bytes)) {
            return Err(OptionsError::BatchBytes { bytes, chunk_bytes });
        }
        if bytes != 0 && chunk_bytes == CHUNK_BYTES_MAX {
            return Err(OptionsError::Both);
        }
        if self.compression == Compression::Gzip {
            return Err(OptionsError::Compression {
                compression: self.compression,
            });
        }
        if self.compression == Compression::Zstd && !(1..=22).contains(&self.level) {
            return Err(OptionsError::Level { level: self.level });
        }
        for (index, dictionary) in self.dictionaries.iter().enumerate() {
            dictionary
                .check_digester(self.digester)
                .map_err(|source| OptionsError::Dictionary { index, source })?;
        }
        Ok(())
    }
}
