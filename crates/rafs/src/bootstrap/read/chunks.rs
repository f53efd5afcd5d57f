//! From the chunk table to the map.

use std::collections::BTreeMap;

use draught_digest::{DIGEST_BYTES, Digest};
use draught_tree::{
    BLOCK_BYTES, Blob, BlobId, BlobOffset, Chunk, ChunkId, ChunkMap, ChunkOffset, Compression,
    DeviceOffset, Extent, ExtentId,
};

use crate::blob::{BlobInfo, ChunkTable, TableLimits};
use crate::bootstrap::chunk_entry::{Address, block_of};
use crate::bootstrap::raw::{
    CHUNK_BATCH, CHUNK_COMPRESSED, CHUNK_CRC32, CHUNK_ENCRYPTED, CHUNK_HOLE, RawChunk,
};
use crate::bootstrap::read::error::ReadError;

/// The most bytes that an extent of one chunk may be stored in: incompressible data grows a little
/// in compressors that nobody tells to store it.
const STORED_BYTES_MAX: u32 = 17 << 20;

/// What turns the chunk table into a map.
pub(crate) struct Chunks<'a> {
    blobs: &'a [BlobInfo],
    chunk_bytes: u32,
    /// The chunk-info tables of blobs whose extents hold several chunks.
    tables: BTreeMap<u32, ChunkTable>,
}

/// The map, and where to find what a file's chunk index names.
pub(crate) struct Located {
    pub(crate) map: ChunkMap,
    /// For every chunk of the map, its index in its blob's table. Chunks are sorted by blob and by it.
    pub(crate) indexes: Vec<u32>,
    /// For every blob, its first chunk and the one after its last.
    ranges: Vec<(usize, usize)>,
}

impl Located {
    /// The chunk that a file names.
    pub(crate) fn find(&self, address: Address) -> Option<(ChunkId, &Chunk)> {
        let (first, end) = *self.ranges.get(usize::try_from(address.blob).ok()?)?;
        let indexes = self.indexes.get(first..end)?;
        let at = first + indexes.binary_search(&address.index).ok()?;
        let chunk = self.map.chunks.get(at)?;
        let id = ChunkId(u32::try_from(at).ok()?);
        (block_of(chunk) == Some(address.block)).then_some((id, chunk))
    }
}

impl<'a> Chunks<'a> {
    pub(crate) fn new(blobs: &'a [BlobInfo], chunk_bytes: u32) -> Self {
        Self {
            blobs,
            chunk_bytes,
            tables: BTreeMap::new(),
        }
    }

    /// Reads the chunk-info table of a blob. Its digests are those of the bootstrap, which was verified;
    /// chunks that the bootstrap doesn't have get none, and are not taken.
    pub(crate) fn load_batches(
        &mut self,
        at: u32,
        info: &BlobInfo,
        blob: Digest,
        raws: &[RawChunk],
        stored: &[u8],
        limits: &TableLimits,
    ) -> Result<(), ReadError> {
        if info.chunks > limits.chunks_max {
            return Err(ReadError::Limit {
                what: "chunks in a blob",
                value: info.chunks.into(),
                limit: limits.chunks_max.into(),
            });
        }
        let count = usize::try_from(info.chunks).unwrap_or(usize::MAX);
        let mut digests = vec![0; count.saturating_mul(DIGEST_BYTES)];
        for raw in raws.iter().filter(|raw| raw.blob.get() == at) {
            let start = usize::try_from(raw.index.get()).unwrap_or(usize::MAX);
            let start = start.saturating_mul(DIGEST_BYTES);
            let slot = digests.get_mut(start..start.saturating_add(DIGEST_BYTES));
            if let Some(slot) = slot {
                slot.copy_from_slice(&raw.digest);
            }
        }
        let table = ChunkTable::decode(stored, &digests, info, limits);
        let table = table.map_err(|source| ReadError::ChunkInfo { blob, source })?;
        self.tables.insert(at, table);
        Ok(())
    }

    /// Puts all chunks of the table into a map.
    pub(crate) fn locate(self, raws: &[RawChunk]) -> Result<Located, ReadError> {
        let mut map = ChunkMap::default();
        for info in self.blobs {
            // Every blob that was read has a digest.
            let digest = info.digest.unwrap_or_else(|| Digest::sha256(&[]));
            map.blobs.push(Blob {
                digest,
                stored_bytes: info.stored_bytes,
                device_bytes: info.device_bytes,
            });
        }
        let mut order: Vec<&RawChunk> = raws.iter().collect();
        order.sort_by_key(|raw| (raw.blob.get(), raw.index.get()));
        let mut indexes = Vec::with_capacity(raws.len());
        let mut ranges = vec![(0, 0); self.blobs.len()];
        let mut extents = BTreeMap::new();
        let mut last: Option<&RawChunk> = None;
        for raw in order {
            let (blob, index) = (raw.blob.get(), raw.index.get());
            let bad = |problem| ReadError::Chunk {
                blob,
                index,
                problem,
            };
            if let Some(last) = last
                && (last.blob, last.index) == (raw.blob, raw.index)
            {
                if !same(last, raw) {
                    return Err(bad("the chunk table has two of it that differ"));
                }
                continue;
            }
            last = Some(raw);
            let at = usize::try_from(blob).unwrap_or(usize::MAX);
            let info = self.blobs.get(at).ok_or(bad("there is no such blob"))?;
            let (mut chunk, extent) = self.chunk(raw, info)?;
            chunk.extent = match extent {
                // Batches are numbered by their own table.
                Extend::Batch(number, extent) => match extents.get(&(blob, number)) {
                    Some(known) => *known,
                    None => {
                        let id = map.push_extent(extent).ok_or(bad("there are too many"))?;
                        extents.insert((blob, number), id);
                        id
                    }
                },
                Extend::Own(extent) => map.push_extent(extent).ok_or(bad("there are too many"))?,
            };
            let id = map.push_chunk(chunk).ok_or(bad("there are too many"))?;
            indexes.push(index);
            if let Some(range) = ranges.get_mut(at) {
                if range.1 == 0 {
                    range.0 = id.index();
                }
                range.1 = id.index() + 1;
            }
        }
        check_places(&map, &indexes)?;
        Ok(Located {
            map,
            indexes,
            ranges,
        })
    }

    /// A chunk, its extent still to be set.
    fn chunk(&self, raw: &RawChunk, info: &BlobInfo) -> Result<(Chunk, Extend), ReadError> {
        let (blob, index) = (raw.blob.get(), raw.index.get());
        let bad = |problem| ReadError::Chunk {
            blob,
            index,
            problem,
        };
        let flags = raw.flags.get();
        if flags & CHUNK_ENCRYPTED != 0 {
            return Err(bad("it is encrypted, which is not supported"));
        }
        let known = CHUNK_COMPRESSED | CHUNK_BATCH | CHUNK_CRC32;
        if flags & CHUNK_HOLE != 0 || flags & !known != 0 {
            return Err(bad("it has flags that are not known here"));
        }
        let bytes = raw.bytes.get();
        let place = raw.place.get();
        let end = place.checked_add(bytes.into());
        if bytes == 0 || bytes > self.chunk_bytes {
            return Err(bad("it is empty, or longer than the chunk size"));
        }
        if place % BLOCK_BYTES != 0 || end.is_none_or(|end| end > info.device_bytes) {
            return Err(bad(
                "it is not aligned to a block, or outside of its device",
            ));
        }
        if index >= info.chunks {
            return Err(bad("its blob has fewer chunks"));
        }
        let mut chunk = Chunk {
            digest: Digest::new(info.digester, raw.digest),
            extent: ExtentId(0),
            offset: ChunkOffset(0),
            bytes,
            place: DeviceOffset(place),
        };
        if let Some(table) = self.tables.get(&blob) {
            let row = usize::try_from(index)
                .ok()
                .and_then(|at| table.chunks.get(at));
            let row = row.filter(|row| row.bytes == bytes && row.place == chunk.place);
            let row = row.ok_or(bad("its blob's chunk-info table says something else"))?;
            let extent = table.extents.get(row.extent.index());
            let extent = extent.ok_or(bad("its blob's chunk-info table has no extent for it"))?;
            chunk.offset = row.offset;
            let extent = Extent {
                blob: BlobId(blob),
                ..extent.clone()
            };
            return Ok((chunk, Extend::Batch(row.extent, extent)));
        }
        if flags & CHUNK_BATCH != 0 {
            return Err(bad("it is in a batch, but its blob has none"));
        }
        extent(raw, info).map(|extent| (chunk, Extend::Own(extent)))
    }
}

/// An extent that a chunk brings.
enum Extend {
    /// It is the only chunk in it.
    Own(Extent),
    /// There may be others; the number is that of its blob's table.
    Batch(ExtentId, Extent),
}

/// The extent of a chunk that has one for itself.
fn extent(raw: &RawChunk, info: &BlobInfo) -> Result<Extent, ReadError> {
    let (blob, index) = (raw.blob.get(), raw.index.get());
    let bad = |problem| ReadError::Chunk {
        blob,
        index,
        problem,
    };
    let compression = if raw.flags.get() & CHUNK_COMPRESSED == 0 {
        Compression::None
    } else {
        info.compression
    };
    let stored_bytes = raw.stored_bytes.get();
    let offset = raw.stored_offset.get();
    if compression == Compression::Gzip {
        return Err(bad("it is compressed with gzip, which is not supported"));
    }
    if raw.flags.get() & CHUNK_COMPRESSED != 0 && compression == Compression::None {
        return Err(bad("it is compressed, but its blob names no compressor"));
    }
    if compression == Compression::None && stored_bytes != raw.bytes.get() {
        return Err(bad("it isn't compressed, but has two sizes"));
    }
    let end = offset.checked_add(stored_bytes.into());
    if stored_bytes == 0 || stored_bytes > STORED_BYTES_MAX {
        return Err(bad("it is stored in no byte, or in more than 17 MiB"));
    }
    if end.is_none_or(|end| end > info.stored_bytes) {
        return Err(bad("it is stored outside of its blob"));
    }
    Ok(Extent {
        blob: BlobId(blob),
        offset: BlobOffset(offset),
        stored_bytes,
        decoded_bytes: raw.bytes.get(),
        compression,
    })
}

/// Whether two entries of the chunk table say the same; where in a file a chunk is may differ.
fn same(one: &RawChunk, other: &RawChunk) -> bool {
    let facts = |raw: &RawChunk| {
        (
            raw.digest,
            raw.flags,
            (raw.stored_bytes, raw.stored_offset),
            (raw.bytes, raw.place),
        )
    };
    facts(one) == facts(other)
}

/// Checks that no two chunks share a block of a device.
fn check_places(map: &ChunkMap, indexes: &[u32]) -> Result<(), ReadError> {
    let mut order: Vec<(u32, u64, u64, u32)> = Vec::with_capacity(map.chunks.len());
    for (chunk, index) in map.chunks.iter().zip(indexes) {
        let blob = map.blob_of(chunk).unwrap_or(BlobId(u32::MAX)).0;
        let start = chunk.place.0;
        let end = (start + u64::from(chunk.bytes)).next_multiple_of(BLOCK_BYTES);
        order.push((blob, start, end, *index));
    }
    order.sort_unstable();
    for pair in order.windows(2) {
        if let [(one_blob, _, end, _), (blob, start, _, index)] = pair
            && one_blob == blob
            && start < end
        {
            return Err(ReadError::Chunk {
                blob: *blob,
                index: *index,
                problem: "it shares a block of its device with another chunk",
            });
        }
    }
    Ok(())
}
