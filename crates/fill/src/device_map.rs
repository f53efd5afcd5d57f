//! What belongs on a device, and where in its blob it is stored.

use std::ops::Range;

use draught_digest::Digest;
use draught_tree::{BLOCK_BYTES, BlobId, ChunkMap, Compression, ExtentId, blocks_of};

/// Largest extent, stored and decoded, in bytes. A chunk has 16 MiB at most, and a worker holds whole
/// extents in memory: what a registry says must not make it hold more than that.
pub const EXTENT_BYTES_MAX: u32 = 32 << 20;

/// A chunk on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapChunk {
    /// Where on the device it begins, in bytes; a multiple of a block.
    pub place: u64,
    /// Decoded size in bytes.
    pub bytes: u32,
    /// Where in the decoded extent it begins, in bytes.
    pub offset: u32,
    /// Digest of its decoded bytes.
    pub digest: Digest,
}

impl MapChunk {
    /// The bytes of the device that it takes, in whole blocks.
    #[must_use]
    pub fn blocks(&self) -> Range<u64> {
        self.place
            ..self
                .place
                .saturating_add(blocks_of(u64::from(self.bytes)) * BLOCK_BYTES)
    }
}

/// An extent of a device's blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapExtent {
    /// Where in the blob its stored bytes begin.
    pub blob_offset: u64,
    /// Stored size in bytes.
    pub stored_bytes: u32,
    /// Decoded size in bytes.
    pub decoded_bytes: u32,
    /// How it is stored.
    pub compression: Compression,
    /// Its chunks, by index into the map's.
    pub chunks: Range<u32>,
}

impl MapExtent {
    /// Its stored bytes in the blob.
    #[must_use]
    pub fn stored(&self) -> Range<u64> {
        self.blob_offset
            ..self
                .blob_offset
                .saturating_add(u64::from(self.stored_bytes))
    }
}

/// Why a chunk map describes no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The chunk map has no such blob, extent or chunk.
    #[error("the chunk map refers to {what} {index}, which it does not have")]
    Dangling {
        /// Blob or extent.
        what: &'static str,
        /// Which one.
        index: u32,
    },
    /// A chunk does not begin at a block, is empty, or ends outside of the device or of its extent.
    #[error("the chunk at {place:#x} of blob {blob} does not fit: {problem}")]
    Misplaced {
        /// The blob.
        blob: Digest,
        /// Where on the device.
        place: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two different chunks want the same block, or two extents interleave.
    #[error("chunks of blob {blob} overlap at {place:#x} of its device")]
    Overlap {
        /// The blob.
        blob: Digest,
        /// Where on the device.
        place: u64,
    },
    /// There are more than 2^32 of something.
    #[error("blob {blob} has too many chunks for one device")]
    TooMany {
        /// The blob.
        blob: Digest,
    },
}

/// All chunks of a device in the order of their places, and the extents that they are decoded from.
///
/// Takes some 60 bytes a chunk and 40 an extent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceMap {
    bytes: u64,
    extents: Vec<MapExtent>,
    chunks: Vec<MapChunk>,
}

impl DeviceMap {
    /// The device of one blob of an image.
    ///
    /// # Errors
    /// [`MapError`]: the map comes from outside and promises nothing.
    pub fn new(map: &ChunkMap, blob_id: BlobId) -> Result<Self, MapError> {
        let blob = map.blob(blob_id).ok_or(MapError::Dangling {
            what: "blob",
            index: blob_id.0,
        })?;
        let mut chunks = Vec::new();
        for chunk in &map.chunks {
            let index = chunk.extent.0;
            let extent = map.extent(chunk.extent).ok_or(MapError::Dangling {
                what: "extent",
                index,
            })?;
            if extent.blob != blob_id {
                continue;
            }
            let place = chunk.place.0;
            let misplaced = |problem| MapError::Misplaced {
                blob: blob.digest,
                place,
                problem,
            };
            let offset = u32::try_from(chunk.offset.0)
                .ok()
                .filter(|offset| {
                    offset
                        .checked_add(chunk.bytes)
                        .is_some_and(|end| end <= extent.decoded_bytes)
                })
                .ok_or_else(|| misplaced("it ends outside of its extent"))?;
            let placed = MapChunk {
                place,
                bytes: chunk.bytes,
                offset,
                digest: chunk.digest,
            };
            if extent.stored_bytes > EXTENT_BYTES_MAX || extent.decoded_bytes > EXTENT_BYTES_MAX {
                return Err(misplaced("its extent is larger than 32 MiB"));
            }
            if chunk.bytes == 0 || place % BLOCK_BYTES != 0 {
                return Err(misplaced("it is empty or does not begin at a block"));
            }
            if placed.blocks().end > blob.device_bytes {
                return Err(misplaced("it ends outside of the device"));
            }
            if extent.stored_bytes == 0
                || extent
                    .offset
                    .0
                    .saturating_add(u64::from(extent.stored_bytes))
                    > blob.stored_bytes
            {
                return Err(misplaced("its extent lies outside of the blob"));
            }
            chunks.push((placed, chunk.extent));
        }
        Self::assemble(map, blob.device_bytes, blob.digest, chunks)
    }

    fn assemble(
        map: &ChunkMap,
        bytes: u64,
        blob: Digest,
        mut chunks: Vec<(MapChunk, ExtentId)>,
    ) -> Result<Self, MapError> {
        chunks.sort_by_key(|(chunk, extent)| (chunk.place, *extent));
        // A chunk that several files share may be listed several times.
        chunks.dedup();
        let mut device = Self {
            bytes,
            extents: Vec::new(),
            chunks: Vec::with_capacity(chunks.len()),
        };
        let mut seen = std::collections::BTreeSet::new();
        let mut last: Option<(u64, ExtentId)> = None;
        for (chunk, id) in chunks {
            let overlap = MapError::Overlap {
                blob,
                place: chunk.place,
            };
            if last.is_some_and(|(end, _)| chunk.place < end) {
                return Err(overlap);
            }
            let index =
                u32::try_from(device.chunks.len()).map_err(|_| MapError::TooMany { blob })?;
            match device.extents.last_mut() {
                Some(extent) if last.is_some_and(|(_, last)| last == id) => {
                    extent.chunks.end = index + 1;
                }
                _ => {
                    if !seen.insert(id) {
                        return Err(overlap);
                    }
                    let extent = map.extent(id).ok_or(MapError::Dangling {
                        what: "extent",
                        index: id.0,
                    })?;
                    device.extents.push(MapExtent {
                        blob_offset: extent.offset.0,
                        stored_bytes: extent.stored_bytes,
                        decoded_bytes: extent.decoded_bytes,
                        compression: extent.compression,
                        chunks: index..index + 1,
                    });
                }
            }
            last = Some((chunk.blocks().end, id));
            device.chunks.push(chunk);
        }
        u32::try_from(device.extents.len()).map_err(|_| MapError::TooMany { blob })?;
        Ok(device)
    }

    /// A map from its parts, as [`Self::extents`], [`Self::chunks`] and [`Self::bytes`] give them; for
    /// a caller that kept them itself and trusts what it kept. `None` if they do not fit together.
    #[must_use]
    pub fn from_parts(bytes: u64, extents: Vec<MapExtent>, chunks: Vec<MapChunk>) -> Option<Self> {
        let mut next = 0;
        for extent in &extents {
            if extent.chunks.start != next || extent.chunks.is_empty() {
                return None;
            }
            next = extent.chunks.end;
        }
        let ordered = chunks.iter().zip(chunks.iter().skip(1));
        let fits = usize::try_from(next) == Ok(chunks.len())
            && ordered.into_iter().all(|(a, b)| a.blocks().end <= b.place)
            && chunks.last().is_none_or(|last| last.blocks().end <= bytes);
        fits.then_some(Self {
            bytes,
            extents,
            chunks,
        })
    }

    /// Size of the device in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All extents, in the order of their places.
    #[must_use]
    pub fn extents(&self) -> &[MapExtent] {
        &self.extents
    }

    /// All chunks, in the order of their places.
    #[must_use]
    pub fn chunks(&self) -> &[MapChunk] {
        &self.chunks
    }

    /// The extent of that index.
    #[must_use]
    pub fn extent(&self, index: u32) -> Option<&MapExtent> {
        self.extents.get(usize::try_from(index).ok()?)
    }

    /// The chunks of an extent.
    #[must_use]
    pub fn chunks_of(&self, extent: &MapExtent) -> &[MapChunk] {
        let start = usize::try_from(extent.chunks.start).unwrap_or(usize::MAX);
        let end = usize::try_from(extent.chunks.end).unwrap_or(usize::MAX);
        self.chunks.get(start..end).unwrap_or_default()
    }

    /// The bytes of the device from an extent's first block to the end of its last.
    #[must_use]
    pub fn place_of(&self, extent: &MapExtent) -> Range<u64> {
        match self.chunks_of(extent) {
            [] => 0..0,
            [only] => only.blocks(),
            [first, .., last] => first.place..last.blocks().end,
        }
    }

    /// The extents that a range of the device's bytes needs, by index. Blocks that no chunk has are
    /// holes of the device and need nothing.
    #[must_use]
    pub fn covering(&self, range: &Range<u64>) -> Range<u32> {
        let first = self
            .extents
            .partition_point(|extent| self.place_of(extent).end <= range.start);
        let end = self
            .extents
            .partition_point(|extent| self.place_of(extent).start < range.end);
        let index = |at| u32::try_from(at).unwrap_or(u32::MAX);
        if range.is_empty() || end <= first {
            0..0
        } else {
            index(first)..index(end)
        }
    }
}
