//! Encoding the chunk-info table.

use draught_tree::{Chunk, Compression, Extent};
use zerocopy::IntoBytes;

use super::raw::{RawBatch, RawChunkV1, RawChunkV2};
use super::table::{
    ChunkTable, FLAG_BATCH, FLAG_COMPRESSED, OFFSET_MASK, PLACE_V1_MASK, SIZE_LOW_MASK, SIZE_MASK,
};

/// A table's bytes.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    /// Where the batches begin.
    pub(crate) batches_offset: u64,
    /// How many there are.
    pub(crate) batches: u32,
}

/// Encodes a table in which every extent has one chunk.
pub(crate) fn encode_v1(table: &ChunkTable) -> Encoded {
    let mut bytes = Vec::with_capacity(table.chunks.len() * size_of::<RawChunkV1>());
    for (chunk, extent) in rows(table) {
        let stored = u64::from(extent.stored_bytes).saturating_sub(1);
        let decoded = u64::from(chunk.bytes).saturating_sub(1);
        let raw = RawChunkV1 {
            decoded: ((decoded & SIZE_LOW_MASK) << 44
                | (chunk.place.0 & PLACE_V1_MASK)
                | (decoded & 0xf0_0000) >> 12)
                .into(),
            stored: ((stored & SIZE_LOW_MASK) << 44
                | (stored & 0xf0_0000) << 20
                | (extent.offset.0 & OFFSET_MASK))
                .into(),
        };
        bytes.extend_from_slice(raw.as_bytes());
    }
    Encoded {
        batches_offset: bytes.len() as u64,
        bytes,
        batches: 0,
    }
}

/// Encodes a table in which an extent with several chunks is a batch.
pub(crate) fn encode_v2(table: &ChunkTable) -> Encoded {
    let mut chunks_of = vec![0_u32; table.extents.len()];
    for chunk in &table.chunks {
        if let Some(count) = chunks_of.get_mut(chunk.extent.index()) {
            *count += 1;
        }
    }
    let mut bytes = Vec::with_capacity(table.chunks.len() * size_of::<RawChunkV2>());
    let mut contexts = Vec::new();
    let (mut batches, mut last) = (0_u32, None);
    for (chunk, extent) in rows(table) {
        let batch = chunks_of
            .get(chunk.extent.index())
            .is_some_and(|count| *count > 1);
        if batch && last != Some(chunk.extent) {
            last = Some(chunk.extent);
            batches += 1;
            let context = RawBatch {
                stored_bytes: extent.stored_bytes.into(),
                decoded_bytes: extent.decoded_bytes.into(),
                reserved: [0; 32],
            };
            contexts.extend_from_slice(context.as_bytes());
        }
        let compressed = batch || extent.compression != Compression::None;
        let raw = RawChunkV2 {
            decoded: ((chunk.place.0 >> 12)
                | (u64::from(chunk.bytes).saturating_sub(1) & SIZE_MASK) << 32
                | if compressed { FLAG_COMPRESSED } else { 0 }
                | if batch { FLAG_BATCH } else { 0 })
            .into(),
            stored: ((extent.offset.0 & OFFSET_MASK)
                | if batch {
                    0
                } else {
                    (u64::from(extent.stored_bytes) & SIZE_MASK) << 40
                })
            .into(),
            data: if batch {
                u64::from(batches.saturating_sub(1)) << 32 | chunk.offset.0 & 0xffff_ffff
            } else {
                0
            }
            .into(),
        };
        bytes.extend_from_slice(raw.as_bytes());
    }
    let batches_offset = bytes.len() as u64;
    bytes.extend_from_slice(&contexts);
    Encoded {
        bytes,
        batches_offset,
        batches,
    }
}

fn rows(table: &ChunkTable) -> impl Iterator<Item = (&Chunk, &Extent)> {
    table
        .chunks
        .iter()
        .filter_map(|chunk| Some((chunk, table.extents.get(chunk.extent.index())?)))
}
