//! The chunk-info table: where each chunk of a blob is, stored and decoded.

use draught_codec::{DecodeError, Decoder};
use draught_digest::{DIGEST_BYTES, Digest};
use draught_tree::{
    BLOCK_BYTES, BlobId, BlobOffset, Chunk, ChunkId, ChunkMap, ChunkOffset, Compression,
    DeviceOffset, Extent, ExtentId,
};
use zerocopy::FromBytes;

use super::features::{BlobFeatures, UnsupportedFeatures};
use super::info::BlobInfo;
use super::raw::{
    CHUNK_INFO_HEADER_BYTES, CHUNK_INFO_MAGIC, RawBatch, RawChunkInfoHeader, RawChunkV1, RawChunkV2,
};

pub(super) const OFFSET_MASK: u64 = (1 << 40) - 1;
pub(super) const PLACE_V1_MASK: u64 = 0x0fff_ffff_f000;
pub(super) const SIZE_MASK: u64 = 0x00ff_ffff;
pub(super) const SIZE_LOW_MASK: u64 = 0x000f_ffff;

pub(super) const FLAG_COMPRESSED: u64 = 1 << 56;
const FLAG_ZRAN: u64 = 2 << 56;
pub(super) const FLAG_BATCH: u64 = 4 << 56;
const FLAG_ENCRYPTED: u64 = 8 << 56;
const FLAG_CRC32: u64 = 16 << 56;
const FLAGS_KNOWN: u64 = FLAG_COMPRESSED | FLAG_ZRAN | FLAG_BATCH | FLAG_ENCRYPTED | FLAG_CRC32;
const FLAGS: u64 = 0xff << 56;

/// Decoded size of an extent in bytes, at most.
const EXTENT_BYTES_MAX: u32 = 16 << 20;

/// What a chunk-info table may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableLimits {
    /// Chunks. 2^24 is what the format can express.
    pub chunks_max: u32,
}

impl Default for TableLimits {
    fn default() -> Self {
        Self {
            chunks_max: 1 << 24,
        }
    }
}

/// Why a chunk-info table can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkTableError {
    /// The blob has features that we don't read.
    #[error("failed to read the chunk-info table")]
    Unsupported {
        /// Which.
        source: UnsupportedFeatures,
    },
    /// There are fewer or more bytes than the blob's facts say.
    #[error("the chunk-info table and its header are {got} bytes, {expected} were expected")]
    Size {
        /// What the facts say.
        expected: u64,
        /// How many were given.
        got: u64,
    },
    /// The header isn't one.
    #[error("the chunk-info header has no magic number")]
    Magic,
    /// The header says something else than the bootstrap or than the table's size.
    #[error("the chunk-info header says {what} {got}, but {expected} was expected")]
    Header {
        /// Of what it speaks.
        what: &'static str,
        /// What it says.
        got: u64,
        /// What it should say.
        expected: u64,
    },
    /// There are too many chunks.
    #[error("the chunk-info table has {chunks} chunks, the limit is {limit}")]
    Limit {
        /// How many there are.
        chunks: u32,
        /// How many there may be.
        limit: u32,
    },
    /// The table can't be decoded.
    #[error("failed to decode the chunk-info table")]
    Decode {
        /// Why.
        source: DecodeError,
    },
    /// The list of digests has another length than the table.
    #[error("{chunks} chunks have {digest_bytes} bytes of digests")]
    Digests {
        /// How many chunks there are.
        chunks: u32,
        /// How many bytes of digests.
        digest_bytes: usize,
    },
    /// A chunk can't be.
    #[error("chunk {index} of the chunk-info table can't be: {problem}")]
    Chunk {
        /// Which, from 0.
        index: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// All extents and chunks of one blob. Ids count within it: extents name [`BlobId`] 0, chunks name
/// extents of this table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChunkTable {
    /// The extents, in the order of their bytes.
    pub extents: Vec<Extent>,
    /// The chunks, in the order of their places.
    pub chunks: Vec<Chunk>,
}

impl ChunkTable {
    /// Moves all into `map` as those of `blob`. Gives the id of the first chunk, the others follow;
    /// `None` when the map can't hold so many.
    pub fn append_to(self, map: &mut ChunkMap, blob: BlobId) -> Option<ChunkId> {
        let first_extent = u32::try_from(map.extents.len()).ok()?;
        let first_chunk = ChunkId(u32::try_from(map.chunks.len()).ok()?);
        u32::try_from(map.extents.len() + self.extents.len()).ok()?;
        u32::try_from(map.chunks.len() + self.chunks.len()).ok()?;
        map.extents.extend(
            self.extents
                .into_iter()
                .map(|extent| Extent { blob, ..extent }),
        );
        map.chunks
            .extend(self.chunks.into_iter().map(|chunk| Chunk {
                extent: ExtentId(chunk.extent.0.saturating_add(first_extent)),
                ..chunk
            }));
        Some(first_chunk)
    }

    /// Reads a table. `stored` is what lies at `info.chunk_info`, its header included; `digests` is the
    /// decoded digest list of the same blob.
    ///
    /// # Errors
    /// See [`ChunkTableError`].
    pub fn decode(
        stored: &[u8],
        digests: &[u8],
        info: &BlobInfo,
        limits: &TableLimits,
    ) -> Result<Self, ChunkTableError> {
        info.features
            .check_supported()
            .map_err(|source| ChunkTableError::Unsupported { source })?;
        if info.chunks > limits.chunks_max {
            return Err(ChunkTableError::Limit {
                chunks: info.chunks,
                limit: limits.chunks_max,
            });
        }
        let digest_list = <[[u8; DIGEST_BYTES]]>::ref_from_bytes(digests)
            .ok()
            .filter(|list| list.len() as u64 == u64::from(info.chunks))
            .ok_or(ChunkTableError::Digests {
                chunks: info.chunks,
                digest_bytes: digests.len(),
            })?;
        let (stored_table, header) = split(stored, info)?;
        check_header(header, info)?;
        let table = decode_table(stored_table, info)?;
        let mut builder = Builder::new(info, header.contexts.get());
        if info.features.contains(BlobFeatures::CHUNK_INFO_V2) {
            let batches = batches(&table, header, info)?;
            let raws = entries::<RawChunkV2>(&table, info.chunks)?;
            for (raw, digest) in raws.iter().zip(digest_list) {
                builder.push_v2(raw, digest, batches)?;
            }
        } else {
            let raws = entries::<RawChunkV1>(&table, info.chunks)?;
            for (raw, digest) in raws.iter().zip(digest_list) {
                builder.push_v1(raw, digest)?;
            }
        }
        Ok(builder.table)
    }
}

fn split<'a>(
    stored: &'a [u8],
    info: &BlobInfo,
) -> Result<(&'a [u8], &'a RawChunkInfoHeader), ChunkTableError> {
    let expected = info
        .chunk_info
        .stored_bytes
        .saturating_add(CHUNK_INFO_HEADER_BYTES as u64);
    let got = stored.len() as u64;
    if got != expected {
        return Err(ChunkTableError::Size { expected, got });
    }
    let (header_at, table) = RawChunkInfoHeader::ref_from_suffix(stored)
        .map(|(table, header)| (header, table))
        .map_err(|_| ChunkTableError::Size { expected, got })?;
    Ok((table, header_at))
}

fn check_header(header: &RawChunkInfoHeader, info: &BlobInfo) -> Result<(), ChunkTableError> {
    let range = &info.chunk_info;
    if header.magic.get() != CHUNK_INFO_MAGIC || header.magic2.get() != CHUNK_INFO_MAGIC {
        return Err(ChunkTableError::Magic);
    }
    let dictionary = info.features.contains(BlobFeatures::CHUNKDICT_GENERATED);
    let chunks = if dictionary {
        header.entries.get()
    } else {
        info.chunks
    };
    for (what, got, expected) in [
        ("chunks", header.entries.get().into(), chunks.into()),
        ("offset", header.offset.get(), range.offset.0),
        ("stored size", header.stored_bytes.get(), range.stored_bytes),
        (
            "decoded size",
            header.decoded_bytes.get(),
            range.decoded_bytes,
        ),
        (
            "compressor",
            header.compressor.get().into(),
            compressor_id(range.compression).into(),
        ),
    ] {
        if got != expected {
            return Err(ChunkTableError::Header {
                what,
                got,
                expected,
            });
        }
    }
    Ok(())
}

fn decode_table(stored: &[u8], info: &BlobInfo) -> Result<Vec<u8>, ChunkTableError> {
    let v2 = info.features.contains(BlobFeatures::CHUNK_INFO_V2);
    let (chunk, batch) = if v2 {
        (size_of::<RawChunkV2>(), size_of::<RawBatch>())
    } else {
        (size_of::<RawChunkV1>(), 0)
    };
    // No more batches than chunks, so this bounds what is allocated.
    let largest = u64::from(info.chunks).saturating_mul((chunk + batch) as u64);
    let decoded = info.chunk_info.decoded_bytes;
    if decoded > largest {
        return Err(ChunkTableError::Header {
            what: "decoded size",
            got: decoded,
            expected: largest,
        });
    }
    let mut table = Vec::new();
    let decoded = u32::try_from(decoded).unwrap_or(u32::MAX);
    Decoder::new()
        .decode(info.chunk_info.compression, stored, decoded, &mut table)
        .map_err(|source| ChunkTableError::Decode { source })?;
    Ok(table)
}

fn entries<T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable>(
    table: &[u8],
    chunks: u32,
) -> Result<&[T], ChunkTableError> {
    let count = usize::try_from(chunks).unwrap_or(usize::MAX);
    <[T]>::ref_from_prefix_with_elems(table, count)
        .map(|(raws, _)| raws)
        .map_err(|_| ChunkTableError::Size {
            expected: u64::from(chunks).saturating_mul(size_of::<T>() as u64),
            got: table.len() as u64,
        })
}

fn batches<'a>(
    table: &'a [u8],
    header: &RawChunkInfoHeader,
    info: &BlobInfo,
) -> Result<&'a [RawBatch], ChunkTableError> {
    if !info.features.contains(BlobFeatures::BATCH) {
        return Ok(&[]);
    }
    let count = usize::try_from(header.contexts.get()).unwrap_or(usize::MAX);
    usize::try_from(header.contexts_offset.get())
        .ok()
        .and_then(|at| table.get(at..))
        .and_then(|tail| <[RawBatch]>::ref_from_prefix_with_elems(tail, count).ok())
        .map(|(raws, _)| raws)
        .ok_or(ChunkTableError::Header {
            what: "batches",
            got: header.contexts.get().into(),
            expected: 0,
        })
}

/// Turns entries into extents and chunks, and checks them on the way.
struct Builder<'a> {
    info: &'a BlobInfo,
    table: ChunkTable,
    /// Where the data ends.
    data_end: u64,
    /// Where in the device the last chunk ended.
    device_end: u64,
    /// The extent of each batch.
    batch_extents: Vec<Option<ExtentId>>,
}

impl<'a> Builder<'a> {
    fn new(info: &'a BlobInfo, batches: u32) -> Self {
        let batches = batches.min(info.chunks);
        Self {
            info,
            table: ChunkTable::default(),
            data_end: info.chunk_info.offset.0,
            device_end: 0,
            batch_extents: vec![None; usize::try_from(batches).unwrap_or_default()],
        }
    }

    fn error(&self, problem: &'static str) -> ChunkTableError {
        ChunkTableError::Chunk {
            index: self.table.chunks.len(),
            problem,
        }
    }

    fn push_v1(&mut self, raw: &RawChunkV1, digest: &[u8; 32]) -> Result<(), ChunkTableError> {
        let (stored, decoded) = (raw.stored.get(), raw.decoded.get());
        let stored_bytes = ((stored >> 44) | ((stored >> 20) & 0xf0_0000)) + 1;
        let bytes = ((decoded >> 44) | ((decoded << 12) & 0xf0_0000)) + 1;
        let extent = Extent {
            blob: BlobId(0),
            offset: BlobOffset(stored & OFFSET_MASK),
            stored_bytes: u32::try_from(stored_bytes).unwrap_or(u32::MAX),
            decoded_bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            compression: if stored_bytes == bytes {
                Compression::None
            } else {
                self.info.compression
            },
        };
        let bytes = extent.decoded_bytes;
        let extent = self.extent(extent)?;
        self.chunk(extent, 0, bytes, decoded & PLACE_V1_MASK, digest)
    }

    fn push_v2(
        &mut self,
        raw: &RawChunkV2,
        digest: &[u8; 32],
        batches: &[RawBatch],
    ) -> Result<(), ChunkTableError> {
        let (stored, decoded, data) = (raw.stored.get(), raw.decoded.get(), raw.data.get());
        let flags = decoded & FLAGS;
        if flags & !FLAGS_KNOWN != 0 {
            return Err(self.error("it has unknown flags"));
        }
        if flags & (FLAG_ZRAN | FLAG_ENCRYPTED) != 0 {
            return Err(self.error("zran and encryption are not supported"));
        }
        let place = (decoded & 0xffff_ffff) << 12;
        let bytes = u32::try_from(((decoded >> 32) & SIZE_MASK) + 1).unwrap_or(u32::MAX);
        let offset = BlobOffset(stored & OFFSET_MASK);
        if flags & FLAG_BATCH != 0 {
            let extent = self.batch(data >> 32, offset, batches)?;
            return self.chunk(extent, data & 0xffff_ffff, bytes, place, digest);
        }
        let extent = self.extent(Extent {
            blob: BlobId(0),
            offset,
            stored_bytes: u32::try_from((stored >> 40) & SIZE_MASK).unwrap_or(u32::MAX),
            decoded_bytes: bytes,
            compression: if flags & FLAG_COMPRESSED == 0 {
                Compression::None
            } else {
                self.info.compression
            },
        })?;
        self.chunk(extent, 0, bytes, place, digest)
    }

    /// The extent of a batch; the first chunk of it brings it.
    fn batch(
        &mut self,
        index: u64,
        offset: BlobOffset,
        batches: &[RawBatch],
    ) -> Result<ExtentId, ChunkTableError> {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let raw = batches
            .get(index)
            .ok_or_else(|| self.error("there is no such batch"))?;
        let known = self
            .batch_extents
            .get(index)
            .copied()
            .ok_or_else(|| self.error("there are more batches than chunks"))?;
        if let Some(extent) = known {
            let same = self
                .table
                .extents
                .get(extent.index())
                .is_some_and(|extent| extent.offset == offset);
            return if same {
                Ok(extent)
            } else {
                Err(self.error("its batch lies elsewhere for another chunk"))
            };
        }
        let (stored_bytes, decoded_bytes) = (raw.stored_bytes.get(), raw.decoded_bytes.get());
        let extent = self.extent(Extent {
            blob: BlobId(0),
            offset,
            stored_bytes,
            decoded_bytes,
            // Nothing else tells a batch that did not shrink.
            compression: if stored_bytes == decoded_bytes {
                Compression::None
            } else {
                self.info.compression
            },
        })?;
        if let Some(slot) = self.batch_extents.get_mut(index) {
            *slot = Some(extent);
        }
        Ok(extent)
    }

    fn extent(&mut self, extent: Extent) -> Result<ExtentId, ChunkTableError> {
        let end = extent.offset.0.saturating_add(extent.stored_bytes.into());
        if end > self.data_end {
            return Err(self.error("it is stored outside of the data"));
        }
        if extent.decoded_bytes > EXTENT_BYTES_MAX || extent.decoded_bytes == 0 {
            return Err(self.error("it is empty, or larger than 16 MiB"));
        }
        if extent.stored_bytes == 0 {
            // As nydus-image 2.4.1 to 2.4.3 writes it for every chunk that it does not batch, when it is told to
            // batch: the content is nowhere.
            return Err(
                self.error("it is stored in no byte: the blob's writer left its content out")
            );
        }
        if extent.compression == Compression::None && extent.stored_bytes != extent.decoded_bytes {
            return Err(self.error("it isn't compressed, but has two sizes"));
        }
        let id = ExtentId(u32::try_from(self.table.extents.len()).unwrap_or(u32::MAX));
        self.table.extents.push(extent);
        Ok(id)
    }

    fn chunk(
        &mut self,
        extent: ExtentId,
        offset: u64,
        bytes: u32,
        place: u64,
        digest: &[u8; 32],
    ) -> Result<(), ChunkTableError> {
        let decoded = self
            .table
            .extents
            .get(extent.index())
            .map_or(0, |extent| u64::from(extent.decoded_bytes));
        if offset.saturating_add(bytes.into()) > decoded {
            return Err(self.error("it ends outside of its batch"));
        }
        if place < self.device_end {
            return Err(self.error("it overlaps the chunk before it"));
        }
        let end = place + u64::from(bytes);
        if end > self.info.device_bytes.next_multiple_of(BLOCK_BYTES) {
            return Err(self.error("it ends outside of its device"));
        }
        self.device_end = end.next_multiple_of(BLOCK_BYTES);
        self.table.chunks.push(Chunk {
            digest: Digest::new(self.info.digester, *digest),
            extent,
            offset: ChunkOffset(offset),
            bytes,
            place: DeviceOffset(place),
        });
        Ok(())
    }
}

/// The number of a compressor in a chunk-info header.
pub(crate) fn compressor_id(compression: Compression) -> u32 {
    match compression {
        Compression::None => 0,
        Compression::Lz4Block => 1,
        Compression::Gzip => 2,
        Compression::Zstd => 3,
    }
}
