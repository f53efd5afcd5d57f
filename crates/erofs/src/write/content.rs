//! Chunk indexes: where the content of a file lies.

use draught_tree::{ChunkId, NodeId};
use zerocopy::IntoBytes as _;

use crate::raw::{CHUNK_BITS_MASK, CHUNK_INDEXES, NULL_BLOCK, RawChunkIndex};
use crate::{BLOCK_BITS, BLOCK_BYTES};

/// One index of a file: 8 bytes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkIndex {
    /// The first field. Zero here; the kernel reads no address bits from it in images with 32-bit addresses.
    pub high: u16,
    /// The device: 0 is the image itself, 1 the first slot of the device table. The kernel looks
    /// at as many low bits as the number of devices takes.
    pub device: u16,
    /// The chunk's first block on that device.
    pub block: u32,
}

impl ChunkIndex {
    /// No data: reads as zeros.
    pub const HOLE: Self = Self {
        high: u16::MAX,
        device: u16::MAX,
        block: NULL_BLOCK,
    };

    pub(crate) fn encode_to(self, out: &mut Vec<u8>) {
        let raw = RawChunkIndex {
            block_high: self.high.into(),
            device: self.device.into(),
            block: self.block.into(),
        };
        out.extend_from_slice(raw.as_bytes());
    }

    pub(crate) fn from_raw(raw: &RawChunkIndex) -> Self {
        Self {
            high: raw.block_high.get(),
            device: raw.device.get(),
            block: raw.block.get(),
        }
    }
}

/// The chunk indexes of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkList {
    /// Log2 of the bytes that an index stands for, 12 to 43.
    pub chunk_bits: u32,
    /// The indexes in order; as many as the file's size takes, or more.
    pub indexes: Vec<ChunkIndex>,
}

/// The most that a chunk's bits can be.
pub(crate) const CHUNK_BITS_MAX: u32 = BLOCK_BITS + CHUNK_BITS_MASK;

impl ChunkList {
    pub(crate) const fn new() -> Self {
        Self {
            chunk_bits: BLOCK_BITS,
            indexes: Vec::new(),
        }
    }

    /// What the inode says of the chunks.
    pub(crate) fn format(&self) -> u32 {
        let bits = self.chunk_bits.clamp(BLOCK_BITS, CHUNK_BITS_MAX) - BLOCK_BITS;
        CHUNK_INDEXES | bits
    }
}

/// Why the content of a file can't be expressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// The chunks have less or more bytes than the file.
    #[error("its chunks have {chunk_bytes} bytes, its size is {file_bytes}")]
    Size {
        /// Bytes of all chunks.
        chunk_bytes: u64,
        /// Bytes of the file.
        file_bytes: u64,
    },
    /// A chunk is not in the map, or has no place.
    #[error("chunk {} has no place on a device", chunk.0)]
    Unplaced {
        /// The chunk.
        chunk: ChunkId,
    },
    /// A chunk begins in the middle of one of the file's blocks.
    #[error("chunk {} begins at byte {offset} of the file, which is no multiple of {BLOCK_BYTES}", chunk.0)]
    Unaligned {
        /// The chunk.
        chunk: ChunkId,
        /// Where in the file it begins, in bytes.
        offset: u64,
    },
    /// A chunk has another size than the format has for it.
    #[error("chunk {} has {bytes} bytes, at its place in the file it must have {expected}", chunk.0)]
    ChunkSize {
        /// The chunk.
        chunk: ChunkId,
        /// Its size in bytes.
        bytes: u64,
        /// The size that it must have.
        expected: u64,
    },
    /// A chunk ends beyond the last block that can be addressed.
    #[error("chunk {} lies at block {block} of its device, out of reach", chunk.0)]
    Address {
        /// The chunk.
        chunk: ChunkId,
        /// Its first block.
        block: u64,
    },
    /// A chunk is on a device that the image doesn't have.
    #[error("chunk {} is on device {device}, the image has {devices}", chunk.0)]
    Device {
        /// The chunk.
        chunk: ChunkId,
        /// The device, counted from 1.
        device: u16,
        /// How many there are.
        devices: usize,
    },
}

/// What knows the chunk indexes of files.
pub trait Content {
    /// Puts the indexes of a file into `list`, which is empty but for what its vector has allocated.
    /// Called twice for every file and must say the same.
    ///
    /// # Errors
    /// When they can't be expressed.
    fn describe(
        &self,
        node: NodeId,
        file_bytes: u64,
        chunks: &[ChunkId],
        list: &mut ChunkList,
    ) -> Result<(), ContentError>;
}

/// A file's content as runs that are contiguous on a device.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    /// (Where in the file it begins in blocks, where it lies; `None` for a hole.)
    runs: Vec<(u64, Option<(u16, u32)>)>,
}

impl Runs {
    /// Adds the next chunk, `None` for a hole, which begins at that block of the file.
    pub(crate) fn push(&mut self, file_block: u64, place: Option<(u16, u32)>) {
        let goes_on = match (self.runs.last(), place) {
            (Some((_, None)), None) => true,
            (Some((start, Some((last_device, last_block)))), Some((device, block))) => {
                let expected = u64::from(*last_block) + (file_block - start);
                *last_device == device && expected == u64::from(block)
            }
            _ => false,
        };
        if !goes_on {
            self.runs.push((file_block, place));
        }
    }

    /// Puts into `list` the fewest indexes that one chunk size allows: the largest power of two of
    /// which every run's beginning is a multiple, so that no index has to cover two runs.
    pub(crate) fn fill(&self, file_bytes: u64, list: &mut ChunkList) {
        let file_blocks = file_bytes.div_ceil(BLOCK_BYTES);
        let whole = file_blocks.max(1).next_power_of_two().trailing_zeros();
        let breaks = self.runs.iter().skip(1);
        let bits = breaks.fold(whole, |bits, (start, _)| bits.min(start.trailing_zeros()));
        let bits = bits.min(CHUNK_BITS_MASK);
        list.chunk_bits = BLOCK_BITS + bits;
        let step = 1_u64 << bits;
        let mut runs = self.runs.iter().peekable();
        let mut current = None;
        let mut at = 0;
        while at < file_blocks {
            while let Some(next) = runs.next_if(|(start, _)| *start <= at) {
                current = Some(next);
            }
            let index = match current {
                Some((start, Some((device, block)))) => {
                    // The place of every run's last block was checked to be within 32 bits.
                    let block = u64::from(*block) + (at - start);
                    ChunkIndex {
                        high: 0,
                        device: *device,
                        block: u32::try_from(block).unwrap_or(NULL_BLOCK),
                    }
                }
                _ => ChunkIndex::HOLE,
            };
            list.indexes.push(index);
            at += step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(file_bytes: u64, chunks: &[(u64, Option<(u16, u32)>)]) -> (u32, Vec<(u16, u32)>) {
        let mut runs = Runs::default();
        for (block, place) in chunks {
            runs.push(*block, *place);
        }
        let mut list = ChunkList::new();
        runs.fill(file_bytes, &mut list);
        let indexes = list.indexes.iter().map(|index| (index.device, index.block));
        (list.chunk_bits, indexes.collect())
    }

    #[test]
    fn a_contiguous_file_takes_one_index() {
        let chunks = [(0, Some((1, 100))), (256, Some((1, 356)))];
        assert_eq!(list(300 * 4096 + 1, &chunks), (21, vec![(1, 100)]));
    }

    #[test]
    fn a_break_bounds_the_chunk_size() {
        let chunks = [
            (0, Some((1, 100))),
            (256, Some((2, 0))),
            (512, Some((2, 256))),
        ];
        assert_eq!(
            list(600 * 4096, &chunks),
            (20, vec![(1, 100), (2, 0), (2, 256)])
        );
    }

    #[test]
    fn holes_are_runs_of_their_own() {
        let chunks = [(0, Some((1, 7))), (4, None), (8, None), (12, Some((1, 8)))];
        let null = (u16::MAX, u32::MAX);
        assert_eq!(
            list(13 * 4096, &chunks),
            (14, vec![(1, 7), null, null, (1, 8)])
        );
    }

    #[test]
    fn a_file_of_nothing_takes_none() {
        assert_eq!(list(0, &[]), (12, vec![]));
    }
}
