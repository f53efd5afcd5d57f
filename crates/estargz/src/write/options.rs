//! What a caller can choose.

use std::num::NonZeroUsize;

use draught_tree::BLOCK_BYTES;

use super::error::WriteError;
use crate::reader::Limits;

/// The most bytes of a chunk: whoever writes or reads holds whole ones in memory, several at a time.
pub const CHUNK_BYTES_MAX: u64 = 16 << 20;
/// The most decoded bytes that small files share, for the same reason.
pub const PACK_BYTES_MAX: u64 = 16 << 20;
/// The level when nobody asks for another: a distribution gets 2.5 % smaller than the format's own tool makes it, in
/// a tenth of its time. Further levels cost more than they save.
pub const LEVEL_DEFAULT: u32 = 6;
/// The highest level.
pub const LEVEL_MAX: u32 = 12;

/// How a layer is written. The same archive and options give the same bytes, with any number of threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOptions {
    /// Files are cut into chunks of so many bytes: a multiple of 4096, [`CHUNK_BYTES_MAX`] at most. 4 MiB as the
    /// format's own tool has it.
    pub chunk_bytes: u64,
    /// How hard to compress, from 1 to [`LEVEL_MAX`].
    pub level: u32,
    /// Chunks share a gzip member as long as it holds no more than so many decoded bytes: fewer and smaller
    /// requests for many small files, and a smaller layer, but readers from before 2023 do not know it.
    /// 0, the default: each chunk has its own. [`PACK_BYTES_MAX`] at most.
    pub pack_bytes: u64,
    /// Files that a start reads, in this order, by their paths in the layer. Those that the layer has come first,
    /// with what has to come before them. If there is any, the archive is spooled.
    pub prefetch: Vec<Vec<u8>>,
    /// Threads that compress, besides the caller's, which reads, and one that writes.
    pub threads: NonZeroUsize,
    /// What the archive may ask for.
    pub tar_limits: draught_tar::Limits,
    /// Entries of the table of contents, further chunks of files included: each takes some 300 bytes of memory
    /// until the layer is written. As many as readers take.
    pub entries_max: u64,
    /// Bytes of the table of contents; names and attributes are in memory until the layer is written. As many
    /// as readers take.
    pub toc_bytes_max: u64,
}

impl Default for WriteOptions {
    fn default() -> Self {
        let readers = Limits::default();
        Self {
            chunk_bytes: 4 << 20,
            level: LEVEL_DEFAULT,
            pack_bytes: 0,
            prefetch: Vec::new(),
            threads: NonZeroUsize::MIN,
            tar_limits: draught_tar::Limits::default(),
            entries_max: readers.entries_max,
            toc_bytes_max: readers.toc_bytes_max,
        }
    }
}

impl WriteOptions {
    pub(super) fn check(&self) -> Result<(), WriteError> {
        let fits = |option, value: u64, ok: bool, allowed| {
            if ok {
                return Ok(());
            }
            Err(WriteError::Option {
                option,
                value,
                allowed,
            })
        };
        let chunk = self.chunk_bytes;
        fits(
            "chunk_bytes",
            chunk,
            (BLOCK_BYTES..=CHUNK_BYTES_MAX).contains(&chunk) && chunk.is_multiple_of(BLOCK_BYTES),
            "a multiple of 4096, 16 MiB at most",
        )?;
        let level = self.level;
        fits(
            "level",
            level.into(),
            (1..=LEVEL_MAX).contains(&level),
            "1 to 12",
        )?;
        let pack = self.pack_bytes;
        fits("pack_bytes", pack, pack <= PACK_BYTES_MAX, "16 MiB at most")
    }
}
