//! What of a blob belongs where: its extents, and the place of each of their chunks on a device.

use std::ops::Range;

use draught_digest::Digest;
use draught_tree::{BLOCK_BYTES, BlobId, ChunkId, ChunkMap, Compression, ExtentId, blocks_of};

/// Largest extent, stored and decoded, in bytes. A chunk has 16 MiB at most, and a worker holds whole
/// extents in memory: what a registry says must not make it hold more than that.
pub const EXTENT_BYTES_MAX: u32 = 32 << 20;

/// A chunk of an extent, and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedChunk {
    /// The device, by its index among the feed's.
    pub device: u16,
    /// Where on the device it begins, in bytes; a multiple of a block.
    pub place: u64,
    /// Decoded size in bytes.
    pub bytes: u32,
    /// Where in the decoded extent it begins, in bytes.
    pub offset: u32,
    /// Digest of its decoded bytes.
    pub digest: Digest,
}

impl FeedChunk {
    /// The bytes of the device that it takes, in whole blocks.
    #[must_use]
    pub fn blocks(&self) -> Range<u64> {
        self.place
            ..self
                .place
                .saturating_add(blocks_of(u64::from(self.bytes)) * BLOCK_BYTES)
    }
}

/// An extent of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedExtent {
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

impl FeedExtent {
    /// Its stored bytes in the blob.
    #[must_use]
    pub fn stored(&self) -> Range<u64> {
        self.blob_offset
            ..self
                .blob_offset
                .saturating_add(u64::from(self.stored_bytes))
    }
}

/// Why a chunk map describes no feed.
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
    /// A chunk is empty, or does not fit into its extent or that into its blob.
    #[error("the extent at {offset:#x} of blob {blob} does not fit: {problem}")]
    Misplaced {
        /// The blob.
        blob: Digest,
        /// Where in the blob the extent begins.
        offset: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// There are more than 2^32 of something.
    #[error("blob {blob} has too many chunks")]
    TooMany {
        /// The blob.
        blob: Digest,
    },
}

/// All extents of a blob in the order of the blob, and where their chunks belong.
///
/// Takes some 70 bytes a chunk and 40 an extent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedMap {
    extents: Vec<FeedExtent>,
    chunks: Vec<FeedChunk>,
    /// The chunks' indexes in the order of their places, each with its extent's.
    by_place: Vec<(u32, u32)>,
}

impl FeedMap {
    /// The feed of one blob of an image. `place` tells where a chunk belongs; one without a place is left
    /// out.
    ///
    /// # Errors
    /// [`MapError`]: the map comes from outside and promises nothing.
    pub fn new(
        map: &ChunkMap,
        blob_id: BlobId,
        place: impl Fn(ChunkId) -> Option<(u16, u64)>,
    ) -> Result<Self, MapError> {
        let blob = map.blob(blob_id).ok_or(MapError::Dangling {
            what: "blob",
            index: blob_id.0,
        })?;
        let mut found: Vec<(u64, ExtentId, FeedChunk)> = Vec::new();
        for (index, chunk) in (0..).zip(&map.chunks) {
            let id = chunk.extent;
            let dangling = MapError::Dangling {
                what: "extent",
                index: chunk.extent.0,
            };
            let extent = map.extent(chunk.extent).ok_or(dangling)?;
            if extent.blob != blob_id {
                continue;
            }
            let misplaced = |problem| MapError::Misplaced {
                blob: blob.digest,
                offset: extent.offset.0,
                problem,
            };
            let end = extent.offset.0.checked_add(extent.stored_bytes.into());
            if extent.stored_bytes == 0 || end.is_none_or(|end| end > blob.stored_bytes) {
                return Err(misplaced("it lies outside of the blob"));
            }
            if extent.stored_bytes > EXTENT_BYTES_MAX || extent.decoded_bytes > EXTENT_BYTES_MAX {
                return Err(misplaced("it is larger than 32 MiB"));
            }
            if chunk.bytes == 0 {
                return Err(misplaced("a chunk of it is empty"));
            }
            let offset = u32::try_from(chunk.offset.0).ok();
            let inside = |offset: &u32| {
                let end = offset.checked_add(chunk.bytes);
                end.is_some_and(|end| end <= extent.decoded_bytes)
            };
            let offset = offset.filter(inside);
            let offset = offset.ok_or_else(|| misplaced("a chunk ends outside of it"))?;
            let Some((device, place)) = place(ChunkId(index)) else {
                continue;
            };
            if place % BLOCK_BYTES != 0 {
                return Err(misplaced("a chunk's place does not begin at a block"));
            }
            let chunk = FeedChunk {
                device,
                place,
                bytes: chunk.bytes,
                offset,
                digest: chunk.digest,
            };
            found.push((extent.offset.0, id, chunk));
        }
        Self::assemble(map, blob.digest, found)
    }

    fn assemble(
        map: &ChunkMap,
        blob: Digest,
        mut found: Vec<(u64, ExtentId, FeedChunk)>,
    ) -> Result<Self, MapError> {
        found.sort_by_key(|(at, extent, chunk)| (*at, *extent, chunk.offset, chunk.place));
        // A chunk that several files share may be listed several times.
        found.dedup();
        let index = |at: usize| u32::try_from(at).map_err(|_| MapError::TooMany { blob });
        let (mut extents, mut chunks) = (Vec::<FeedExtent>::new(), Vec::with_capacity(found.len()));
        let mut last = None;
        for (_, id, chunk) in found {
            let start = index(chunks.len())?;
            chunks.push(chunk);
            match extents.last_mut() {
                Some(extent) if last == Some(id) => extent.chunks.end = start + 1,
                _ => {
                    let extent = map.extent(id).ok_or(MapError::Dangling {
                        what: "extent",
                        index: id.0,
                    })?;
                    extents.push(FeedExtent {
                        blob_offset: extent.offset.0,
                        stored_bytes: extent.stored_bytes,
                        decoded_bytes: extent.decoded_bytes,
                        compression: extent.compression,
                        chunks: start..start + 1,
                    });
                }
            }
            last = Some(id);
        }
        index(extents.len())?;
        Ok(Self::indexed(extents, chunks))
    }

    /// A map from its parts, as [`Self::extents`] and [`Self::chunks`] give them; for a caller that kept them
    /// itself and trusts what it kept. `None` if they do not fit together.
    #[must_use]
    pub fn from_parts(extents: Vec<FeedExtent>, chunks: Vec<FeedChunk>) -> Option<Self> {
        let mut next = 0;
        for extent in &extents {
            if extent.chunks.start != next || extent.chunks.end <= next {
                return None;
            }
            next = extent.chunks.end;
        }
        let ordered = extents.iter().zip(extents.iter().skip(1));
        let fits = usize::try_from(next) == Ok(chunks.len())
            && ordered
                .into_iter()
                .all(|(a, b)| a.blob_offset <= b.blob_offset)
            && chunks
                .iter()
                .all(|chunk| chunk.bytes > 0 && chunk.place % BLOCK_BYTES == 0);
        fits.then(|| Self::indexed(extents, chunks))
    }

    fn indexed(extents: Vec<FeedExtent>, chunks: Vec<FeedChunk>) -> Self {
        let each = (0..).zip(&extents);
        let each =
            each.flat_map(|(index, extent)| extent.chunks.clone().map(move |chunk| (chunk, index)));
        let mut by_place: Vec<(u32, u32)> = each.collect();
        let at = |chunk: u32| {
            let chunk = usize::try_from(chunk).ok().and_then(|at| chunks.get(at));
            chunk.map_or((0, 0), |chunk| (chunk.device, chunk.place))
        };
        by_place.sort_by_key(|(chunk, _)| at(*chunk));
        Self {
            extents,
            chunks,
            by_place,
        }
    }

    /// All extents, in the order of the blob.
    #[must_use]
    pub fn extents(&self) -> &[FeedExtent] {
        &self.extents
    }

    /// All chunks, extent by extent.
    #[must_use]
    pub fn chunks(&self) -> &[FeedChunk] {
        &self.chunks
    }

    /// The extent of that index.
    #[must_use]
    pub fn extent(&self, index: u32) -> Option<&FeedExtent> {
        self.extents.get(usize::try_from(index).ok()?)
    }

    /// The chunks of an extent.
    #[must_use]
    pub fn chunks_of(&self, extent: &FeedExtent) -> &[FeedChunk] {
        let start = usize::try_from(extent.chunks.start).unwrap_or(usize::MAX);
        let end = usize::try_from(extent.chunks.end).unwrap_or(usize::MAX);
        self.chunks.get(start..end).unwrap_or_default()
    }

    fn chunk(&self, index: u32) -> Option<&FeedChunk> {
        self.chunks.get(usize::try_from(index).ok()?)
    }

    /// The chunks that lie in a range of a device's bytes, in the order of their places, each with its extent.
    /// Blocks that no chunk has are nobody's here.
    pub fn covering(
        &self,
        device: u16,
        range: &Range<u64>,
    ) -> impl Iterator<Item = (u32, &FeedChunk)> {
        let range = range.clone();
        let first = self.by_place.partition_point(|(chunk, _)| {
            self.chunk(*chunk).is_some_and(|chunk| {
                chunk.device < device || chunk.device == device && chunk.blocks().end <= range.start
            })
        });
        let after = self.by_place.get(first..).unwrap_or_default().iter();
        after
            .filter_map(|(chunk, extent)| Some((*extent, self.chunk(*chunk)?)))
            .take_while(move |(_, chunk)| chunk.device == device && chunk.place < range.end)
    }
}
