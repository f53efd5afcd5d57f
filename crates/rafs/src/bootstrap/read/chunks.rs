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
    pub(crate) blobs: &'a [BlobInfo],
    pub(crate) chunk_bytes: u32,
    /// The stored chunk-info tables, with their headers, of blobs whose extents hold several chunks.
    pub(crate) stored_tables: BTreeMap<u32, &'a [u8]>,
    pub(crate) limits: TableLimits,
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

impl Chunks<'_> {
    /// Puts all chunks of the table into a map. The chunk-info tables are decoded one after the other.
    pub(crate) fn locate(&self, raws: &[RawChunk]) -> Result<Located, ReadError> {
        let mut located = Located {
            map: ChunkMap::default(),
            indexes: Vec::with_capacity(raws.len()),
            ranges: vec![(0, 0); self.blobs.len()],
        };
        for info in self.blobs {
            // Every blob that was read has a digest.
            let digest = info.digest.unwrap_or_else(|| Digest::sha256(&[]));
            located.map.blobs.push(Blob {
                digest,
                stored_bytes: info.stored_bytes,
                device_bytes: info.device_bytes,
            });
        }
        let mut order: Vec<&RawChunk> = raws.iter().collect();
        order.sort_by_key(|raw| (raw.blob.get(), raw.index.get()));
        for of_blob in order.chunk_by(|one, other| one.blob == other.blob) {
            self.locate_blob(of_blob, &mut located)?;
        }
        check_places(&located.map, &located.indexes)?;
        Ok(located)
    }

    /// Puts the chunks of one blob, sorted by index, into a map.
    fn locate_blob(&self, raws: &[&RawChunk], located: &mut Located) -> Result<(), ReadError> {
        let first = located.map.chunks.len();
        let Some(blob) = raws.first().map(|raw| raw.blob.get()) else {
            return Ok(());
        };
        let at = usize::try_from(blob).unwrap_or(usize::MAX);
        let info = self.blobs.get(at).ok_or(ReadError::Chunk {
            blob,
            index: 0,
            problem: "there is no such blob",
        })?;
        let table = self.table(blob, info, raws)?;
        let mut extents = BTreeMap::new();
        for same in raws.chunk_by(|one, other| one.index == other.index) {
            let Some(raw) = same.first() else { continue };
            let index = raw.index.get();
            let bad = |problem| ReadError::Chunk {
                blob,
                index,
                problem,
            };
            if same.iter().any(|other| !is_same(raw, other)) {
                return Err(bad("the chunk table has two of it that differ"));
            }
            let mut chunk = self.chunk(raw, info)?;
            let map = &mut located.map;
            let extent = match &table {
                // Batches are numbered by their own table.
                Some(table) => {
                    let (number, extent) = in_table(table, raw, &mut chunk)?;
                    match extents.get(&number) {
                        Some(known) => Some(*known),
                        None => {
                            let id = map.push_extent(extent);
                            extents.extend(id.map(|id| (number, id)));
                            id
                        }
                    }
                }
                None => map.push_extent(extent(raw, info)?),
            };
            chunk.extent = extent.ok_or(bad("there are too many"))?;
            map.push_chunk(chunk).ok_or(bad("there are too many"))?;
            located.indexes.push(index);
        }
        if let Some(range) = located.ranges.get_mut(at) {
            *range = (first, located.map.chunks.len());
        }
        Ok(())
    }

    /// The chunk-info table of a blob, if it is needed. Its digests are those of the bootstrap, which was
    /// verified; chunks that the bootstrap doesn't have get none, and are not taken.
    fn table(
        &self,
        at: u32,
        info: &BlobInfo,
        raws: &[&RawChunk],
    ) -> Result<Option<ChunkTable>, ReadError> {
        let Some((stored, blob)) = self.stored_tables.get(&at).copied().zip(info.digest) else {
            return Ok(None);
        };
        if info.chunks > self.limits.chunks_max {
            return Err(ReadError::Limit {
                what: "chunks in a blob with batches",
                value: info.chunks.into(),
                limit: self.limits.chunks_max.into(),
            });
        }
        let count = usize::try_from(info.chunks).unwrap_or(usize::MAX);
        let mut digests = vec![0; count.saturating_mul(DIGEST_BYTES)];
        for raw in raws {
            let start = usize::try_from(raw.index.get()).unwrap_or(usize::MAX);
            let start = start.saturating_mul(DIGEST_BYTES);
            let slot = digests.get_mut(start..start.saturating_add(DIGEST_BYTES));
            if let Some(slot) = slot {
                slot.copy_from_slice(&raw.digest);
            }
        }
        let table = ChunkTable::decode(stored, &digests, info, &self.limits);
        let table = table.map_err(|source| ReadError::ChunkInfo { blob, source })?;
        Ok(Some(table))
    }

    /// A chunk, its extent still to be set.
    fn chunk(&self, raw: &RawChunk, info: &BlobInfo) -> Result<Chunk, ReadError> {
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
        if !place.is_multiple_of(BLOCK_BYTES) || end.is_none_or(|end| end > info.device_bytes) {
            return Err(bad(
                "it is not aligned to a block, or outside of its device",
            ));
        }
        if index >= info.chunks {
            return Err(bad("its blob has fewer chunks"));
        }
        Ok(Chunk {
            digest: Digest::new(info.digester, raw.digest),
            extent: ExtentId(0),
            offset: ChunkOffset(0),
            bytes,
            place: DeviceOffset(place),
        })
    }
}

/// Looks a chunk up in its blob's chunk-info table: the number of its extent there, and the extent.
fn in_table(
    table: &ChunkTable,
    raw: &RawChunk,
    chunk: &mut Chunk,
) -> Result<(ExtentId, Extent), ReadError> {
    let (blob, index) = (raw.blob.get(), raw.index.get());
    let bad = |problem| ReadError::Chunk {
        blob,
        index,
        problem,
    };
    let row = usize::try_from(index).ok();
    let row = row.and_then(|at| table.chunks.get(at));
    let row = row.filter(|row| row.bytes == chunk.bytes && row.place == chunk.place);
    let row = row.ok_or(bad("its blob's chunk-info table says something else"))?;
    let extent = table.extents.get(row.extent.index());
    let extent = extent.ok_or(bad("its blob's chunk-info table has no extent for it"))?;
    chunk.offset = row.offset;
    let extent = Extent {
        blob: BlobId(blob),
        ..extent.clone()
    };
    Ok((row.extent, extent))
}

/// The extent of a chunk that has one for itself.
fn extent(raw: &RawChunk, info: &BlobInfo) -> Result<Extent, ReadError> {
    let (blob, index) = (raw.blob.get(), raw.index.get());
    let bad = |problem| ReadError::Chunk {
        blob,
        index,
        problem,
    };
    if raw.flags.get() & CHUNK_BATCH != 0 {
        return Err(bad("it is in a batch, but its blob has none"));
    }
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
fn is_same(one: &RawChunk, other: &RawChunk) -> bool {
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
