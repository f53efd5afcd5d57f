//! The reader's steps.

use std::collections::BTreeMap;
use std::ops::Range;

use draught_digest::{Algorithm, Digest};
use draught_erofs::{Image, Inode, Layout};
use draught_tree::{BlobOffset, ChunkId, Compression, NodeId, Tree};
use zerocopy::FromBytes as _;

use crate::blob::{BlobFeatures, BlobInfo, TOC_TAIL_BYTES, TableLimits, TocLimits};
use crate::bootstrap::chunk_entry::Address;
use crate::bootstrap::extended::{Extended, Table};
use crate::bootstrap::raw::{
    COMPAT_RAFS_V6, DEVICE_SLOTS_OFFSET, EXTENDED_OFFSET, MAGIC_V5, RawBlob, RawChunk, RawExtended,
};
use crate::bootstrap::read::chunks::{Chunks, Located};
use crate::bootstrap::read::error::ReadError;
use crate::bootstrap::{BLOBS_MAX, blob_entry};

const BLOB_ENTRY_BYTES: u64 = size_of::<RawBlob>() as u64;
const CHUNK_ENTRY_BYTES: u64 = size_of::<RawChunk>() as u64;
const NID_BYTES: u64 = 4;
/// A chunk-info table is followed by its header.
const CHUNK_INFO_HEADER_BYTES: u64 = 4096;

/// What a bootstrap may ask for. Memory that reading takes is some multiple of its size, because every
/// chunk and inode takes bytes in it; these bound what does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What its metadata may ask for.
    pub metadata: draught_erofs::Limits,
    /// What blobs' chunk-info tables may ask for, those of blobs with batches: four million chunks, ten
    /// times what the largest layer has that we know. They take 600 MB while they are read, a blob
    /// after the other.
    pub tables: TableLimits,
    /// What blobs' tables of contents may ask for.
    pub toc: TocLimits,
    /// Bytes of a blob's range that the reader may need: a chunk-info table of four million chunks
    /// with its header, hardly compressed.
    pub needed_bytes_max: u64,
    /// Entries of the prefetch table.
    pub prefetch_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            metadata: draught_erofs::Limits::default(),
            tables: TableLimits {
                chunks_max: 1 << 22,
            },
            toc: TocLimits::default(),
            needed_bytes_max: 1 << 27,
            prefetch_max: 1 << 20,
        }
    }
}

/// A range of a blob that the reader needs, in bytes of the stored blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The blob.
    pub blob: Digest,
    /// The range.
    pub range: Range<u64>,
}

/// What a bootstrap says.
#[derive(Debug)]
pub struct Bootstrap {
    /// The tree with its map: blobs in the order of the bootstrap, chunks in the order of their blobs.
    pub tree: Tree,
    /// What it says of each blob.
    pub blobs: Vec<BlobInfo>,
    /// For every chunk of the map, its index in its blob's chunk-info table.
    pub chunk_indexes: Vec<u32>,
    /// Files and directories to fetch first.
    pub prefetch: Vec<NodeId>,
    /// The size in bytes that files are cut into.
    pub chunk_bytes: u32,
    /// What it says its chunks are compressed with.
    pub compression: Compression,
    /// What it says its chunks are digested with.
    pub digester: Algorithm,
}

/// Reads a bootstrap: [`Reader::open`] it, [`Reader::give`] it all of [`Reader::needs`], then [`Reader::finish`].
///
/// The bootstrap itself must have been verified against the image's manifest. What the reader needs besides says only
/// where chunks lie: it is verified against the bootstrap where that has the digest of the blob's table of contents,
/// and otherwise a lie in it is found when a chunk's digest does not fit.
#[derive(Debug)]
pub struct Reader<'a> {
    image: Image<'a>,
    extended: Extended,
    blobs: Vec<BlobInfo>,
    limits: Limits,
    needs: Vec<Need>,
    given: BTreeMap<(Digest, u64), Vec<u8>>,
}

impl<'a> Reader<'a> {
    /// Looks at a bootstrap's superblocks and blob table. `own` is the digest of the blob that the bootstrap was
    /// taken from, if it was.
    ///
    /// # Errors
    /// When it is no RAFS v6 bootstrap, or has features that are not supported.
    pub fn open(bytes: &'a [u8], own: Option<Digest>, limits: &Limits) -> Result<Self, ReadError> {
        let magic = bytes.first_chunk().copied().map(u32::from_le_bytes);
        if magic == Some(MAGIC_V5) {
            let what = "metadata of RAFS version 5 (convert it with --fs-version 6)";
            return Err(ReadError::Unsupported { what });
        }
        let image = Image::open(bytes)?;
        let superblock = image.superblock();
        if superblock.feature_compat & COMPAT_RAFS_V6 == 0 {
            return Err(ReadError::NotRafs);
        }
        let extended_bytes = size_of::<RawExtended>() as u64;
        let extended = image.slice("extended superblock", EXTENDED_OFFSET, extended_bytes)?;
        let extended = Extended::decode(extended)?;
        let bad = |problem| ReadError::Superblock { problem };
        if superblock.xattr_block != 0 {
            return Err(bad("it has shared extended attributes"));
        }
        let slots_offset = u64::from(superblock.device_slot) * draught_erofs::DEVICE_SLOT_BYTES;
        let count = table_entries(&extended.blobs, BLOB_ENTRY_BYTES, "blob table")?;
        if slots_offset != DEVICE_SLOTS_OFFSET || count != u64::from(superblock.extra_devices) {
            return Err(bad(
                "its device slots are not where they belong, or not one for each blob",
            ));
        }
        if count > BLOBS_MAX as u64 {
            let what = "blobs";
            let limit = BLOBS_MAX as u64;
            return Err(ReadError::Limit {
                what,
                value: count,
                limit,
            });
        }
        let table = image.slice("blob table", extended.blobs.offset, extended.blobs.bytes)?;
        let raws = <[RawBlob]>::ref_from_bytes(table).unwrap_or_default();
        let blobs = (0..)
            .zip(raws)
            .map(|(index, raw)| blob_entry::decode(index, raw, extended.chunk_bytes, own));
        let blobs = blobs.collect::<Result<Vec<_>, _>>()?;
        let mut reader = Self {
            image,
            extended,
            blobs,
            limits: *limits,
            needs: Vec::new(),
            given: BTreeMap::new(),
        };
        reader.needs = reader.find_needs()?;
        Ok(reader)
    }

    /// What the bootstrap says of each blob.
    #[must_use]
    pub fn blobs(&self) -> &[BlobInfo] {
        &self.blobs
    }

    /// The ranges that must be given before the end: tables of blobs whose extents hold several chunks.
    /// Most images need none.
    #[must_use]
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }

    /// Takes the bytes of a range that is needed.
    ///
    /// # Errors
    /// [`ReadError::Missing`] when they are fewer or more than the range has.
    pub fn give(&mut self, need: &Need, bytes: Vec<u8>) -> Result<(), ReadError> {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if need.range.end.checked_sub(need.range.start) != Some(len) {
            return Err(missing(need));
        }
        self.given.insert((need.blob, need.range.start), bytes);
        Ok(())
    }

    fn find_needs(&self) -> Result<Vec<Need>, ReadError> {
        let mut needs = Vec::new();
        for info in &self.blobs {
            let Some(blob) = info.digest.filter(|_| has_batches(info)) else {
                continue;
            };
            if let Some(toc) = toc_range(info) {
                let bytes = toc.end - toc.start;
                // Tables of contents have a handful of entries, but a forged size has 32 bits.
                if bytes > TOC_TAIL_BYTES {
                    return Err(ReadError::Limit {
                        what: "bytes of a table of contents",
                        value: bytes,
                        limit: TOC_TAIL_BYTES,
                    });
                }
                needs.push(Need { blob, range: toc });
            }
            let range = chunk_info_range(info);
            let bytes = range.end - range.start;
            if bytes > self.limits.needed_bytes_max {
                return Err(ReadError::Limit {
                    what: "bytes of a chunk-info table",
                    value: bytes,
                    limit: self.limits.needed_bytes_max,
                });
            }
            needs.push(Need { blob, range });
        }
        Ok(needs)
    }

    /// Reads the tree.
    ///
    /// # Errors
    /// When something is malformed, exceeds a limit, or was not given.
    pub fn finish(self) -> Result<Bootstrap, ReadError> {
        let table = self.extended.chunks;
        table_entries(&table, CHUNK_ENTRY_BYTES, "chunk table")?;
        let bytes = self.image.slice("chunk table", table.offset, table.bytes)?;
        let raws = <[RawChunk]>::ref_from_bytes(bytes).unwrap_or_default();
        let mut stored_tables = BTreeMap::new();
        for (at, info) in (0..).zip(&self.blobs) {
            if let Some(blob) = info.digest.filter(|_| has_batches(info)) {
                self.verify_table(info, blob)?;
                stored_tables.insert(at, self.given(blob, chunk_info_range(info))?);
            }
        }
        let chunks = Chunks {
            blobs: &self.blobs,
            chunk_bytes: self.extended.chunk_bytes,
            stored_tables,
            limits: self.limits.tables,
        };
        let located = chunks.locate(raws)?;
        let read = {
            let content = &mut |inode: &Inode| content(&self, &located, inode);
            draught_erofs::read_tree::<ReadError>(&self.image, &self.limits.metadata, content)?
        };
        let prefetch = self.prefetch()?;
        let prefetch = prefetch.iter().filter_map(|nid| read.node(*nid)).collect();
        let mut tree = read.tree;
        tree.map = located.map;
        Ok(Bootstrap {
            tree,
            chunk_indexes: located.indexes,
            prefetch,
            chunk_bytes: self.extended.chunk_bytes,
            compression: self.extended.compression,
            digester: self.extended.digester,
            blobs: self.blobs,
        })
    }

    fn given(&self, blob: Digest, range: Range<u64>) -> Result<&[u8], ReadError> {
        let found = self.given.get(&(blob, range.start));
        found
            .map(Vec::as_slice)
            .ok_or_else(|| missing(&Need { blob, range }))
    }

    /// Verifies a blob's chunk-info table, if the bootstrap has the digest of its table of contents.
    fn verify_table(&self, info: &BlobInfo, blob: Digest) -> Result<(), ReadError> {
        let Some((range, stated)) = toc_range(info).zip(info.toc) else {
            return Ok(());
        };
        let fail = |source| ReadError::Toc {
            blob,
            source: Box::new(source),
        };
        let tail = self.given(blob, range)?;
        let toc = crate::blob::Toc::decode(tail, info.stored_bytes, &self.limits.toc);
        let toc = toc.map_err(fail)?;
        if toc.sha256 != stated.sha256 || toc.bytes != stated.bytes {
            return Err(ReadError::TocDigest { blob });
        }
        let stored = self.given(blob, chunk_info_range(info))?;
        let table_bytes = usize::try_from(info.chunk_info.stored_bytes).unwrap_or(usize::MAX);
        let (table, header) = stored
            .split_at_checked(table_bytes)
            .unwrap_or((stored, &[]));
        let entry = toc.chunk_info().map_err(fail)?;
        let range = &info.chunk_info;
        if entry.offset != range.offset || entry.stored_bytes != range.stored_bytes {
            return Err(ReadError::TocDigest { blob });
        }
        entry.decode(table).map_err(fail)?;
        let entry = toc.chunk_info_header().map_err(fail)?;
        entry.decode(header).map_err(fail)?;
        Ok(())
    }

    /// The inode numbers of the prefetch table.
    fn prefetch(&self) -> Result<Vec<u64>, ReadError> {
        let table = self.extended.prefetch;
        // Old images of nydus have a size here and no table.
        if table.offset == 0 {
            return Ok(Vec::new());
        }
        let entries = table_entries(&table, NID_BYTES, "prefetch table")?;
        if entries > self.limits.prefetch_max {
            return Err(ReadError::Limit {
                what: "entries of the prefetch table",
                value: entries,
                limit: self.limits.prefetch_max,
            });
        }
        let bytes = self
            .image
            .slice("prefetch table", table.offset, table.bytes)?;
        let nids = bytes
            .as_chunks()
            .0
            .iter()
            .map(|nid| u64::from(u32::from_le_bytes(*nid)));
        // Zero is no inode: it fills the table up.
        Ok(nids.take_while(|nid| *nid != 0).collect())
    }
}

/// The chunks of a file.
fn content(
    reader: &Reader<'_>,
    located: &Located,
    inode: &Inode,
) -> Result<Box<[ChunkId]>, ReadError> {
    let bad = |problem| ReadError::Content {
        nid: inode.nid,
        problem,
    };
    if inode.bytes == 0 {
        return Ok(Box::default());
    }
    let Layout::Chunks { bits } = inode.layout else {
        return Err(bad("it is not in chunks"));
    };
    let chunk_bytes = u64::from(reader.extended.chunk_bytes);
    if bits < chunk_bytes.trailing_zeros() {
        return Err(bad("its chunks are smaller than those of the image"));
    }
    let count = inode.bytes.div_ceil(chunk_bytes);
    let indexes = reader.image.chunk_indexes(inode, count)?;
    let mut left = inode.bytes;
    let mut ids = Vec::with_capacity(indexes.len());
    for index in indexes {
        let address =
            Address::decode(index).ok_or(bad("a chunk is a hole, or in the bootstrap"))?;
        let (id, chunk) = located.find(address).ok_or(bad(
            "a chunk is not in the chunk table, or lies elsewhere there",
        ))?;
        let expected = left.min(chunk_bytes);
        if u64::from(chunk.bytes) != expected {
            return Err(bad(
                "a chunk is longer or shorter than its place in the file",
            ));
        }
        left -= expected;
        ids.push(id);
    }
    Ok(ids.into())
}

fn has_batches(info: &BlobInfo) -> bool {
    info.features.contains(BlobFeatures::BATCH)
}

fn chunk_info_range(info: &BlobInfo) -> Range<u64> {
    let BlobOffset(start) = info.chunk_info.offset;
    start..start + info.chunk_info.stored_bytes + CHUNK_INFO_HEADER_BYTES
}

fn toc_range(info: &BlobInfo) -> Option<Range<u64>> {
    let toc = info.toc?;
    let start = info.stored_bytes.checked_sub(u64::from(toc.bytes))?;
    Some(start..info.stored_bytes)
}

fn missing(need: &Need) -> ReadError {
    ReadError::Missing {
        blob: need.blob,
        start: need.range.start,
        end: need.range.end,
    }
}

fn table_entries(table: &Table, entry_bytes: u64, what: &'static str) -> Result<u64, ReadError> {
    if !table.bytes.is_multiple_of(entry_bytes) {
        let problem = match what {
            "blob table" => "its blob table ends within an entry",
            "chunk table" => "its chunk table ends within an entry",
            _ => "its prefetch table ends within an entry",
        };
        return Err(ReadError::Superblock { problem });
    }
    Ok(table.bytes / entry_bytes)
}
