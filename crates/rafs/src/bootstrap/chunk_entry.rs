//! Entries of the chunk table, and chunk indexes.

use draught_erofs::ChunkIndex;
use draught_tree::{BLOCK_BYTES, Chunk, Extent};
use zerocopy::FromZeros as _;

use crate::bootstrap::raw::{CHUNK_BATCH, CHUNK_COMPRESSED, RawChunk};

/// What a chunk index of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    /// The blob, from 0.
    pub(crate) blob: u32,
    /// The chunk in its blob's table, from 0, below 2^24.
    pub(crate) index: u32,
    /// The chunk's first block on the blob's device.
    pub(crate) block: u32,
}

impl Address {
    /// As EROFS has it: the fields that the kernel takes no address from hold the chunk's index, and
    /// the device's number is the low half of its field.
    pub(crate) fn encode(self) -> ChunkIndex {
        let [low, middle, high, _] = self.index.to_le_bytes();
        let [device, ..] = self.blob.saturating_add(1).to_le_bytes();
        ChunkIndex {
            high: u16::from_le_bytes([low, middle]),
            device: u16::from_le_bytes([device, high]),
            block: self.block,
        }
    }

    /// `None` for a hole or the metadata device.
    pub(crate) fn decode(index: ChunkIndex) -> Option<Self> {
        let [low, middle] = index.high.to_le_bytes();
        let [device, high] = index.device.to_le_bytes();
        if index == ChunkIndex::HOLE {
            return None;
        }
        Some(Self {
            blob: u32::from(device).checked_sub(1)?,
            index: u32::from_le_bytes([low, middle, high, 0]),
            block: index.block,
        })
    }
}

/// A chunk's entry.
pub(crate) fn encode(
    chunk: &Chunk,
    extent: &Extent,
    address: Address,
    file_offset: u64,
    batch: bool,
) -> [u8; 80] {
    let mut raw = RawChunk::new_zeroed();
    raw.digest = *chunk.digest.as_bytes();
    raw.blob = address.blob.into();
    let compressed = extent.compression != draught_tree::Compression::None;
    let flag = |set: bool, bit: u32| if set { bit } else { 0 };
    raw.flags = (flag(compressed, CHUNK_COMPRESSED) | flag(batch, CHUNK_BATCH)).into();
    raw.stored_bytes = extent.stored_bytes.into();
    raw.bytes = chunk.bytes.into();
    raw.stored_offset = extent.offset.0.into();
    raw.place = chunk.place.0.into();
    raw.file_offset = file_offset.into();
    raw.index = address.index.into();
    zerocopy::transmute!(raw)
}

/// The block of a place, if it can be addressed.
pub(crate) fn block_of(chunk: &Chunk) -> Option<u32> {
    let block = u32::try_from(chunk.place.0 / BLOCK_BYTES).ok()?;
    (chunk.place.0.is_multiple_of(BLOCK_BYTES) && block != u32::MAX).then_some(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_both_ways() {
        for (blob, index, block) in [(0, 0, 0), (253, 0xFF_FFFF, u32::MAX - 1), (7, 0x12_3456, 9)] {
            let address = Address { blob, index, block };
            assert_eq!(Address::decode(address.encode()), Some(address));
        }
        assert_eq!(Address::decode(ChunkIndex::HOLE), None);
    }

    #[test]
    fn the_kernel_sees_the_device_in_the_low_bits() {
        let address = Address {
            blob: 2,
            index: 0xAB_CDEF,
            block: 5,
        };
        let index = address.encode();
        assert_eq!((index.high, index.device, index.block), (0xCDEF, 0xAB03, 5));
    }
}
