//! From a tree to a bootstrap.

use std::io;

use draught_digest::Algorithm;
use draught_erofs::{
    ChunkIndex, ChunkList, Content, ContentError, DEVICE_SLOT_BYTES, DeviceSlot, Plan,
    SUPERBLOCK_OFFSET, Superblock,
};
use draught_tree::{BLOCK_BYTES, ChunkId, Compression, Kind, NodeId, Tree, blocks_of};

use crate::blob::{BlobFeatures, BlobInfo};
use crate::bootstrap::chunk_entry::Address;
use crate::bootstrap::extended::{Extended, Table};
use crate::bootstrap::raw::{COMPAT_RAFS_V6, DEVICE_SLOTS_OFFSET};
use crate::bootstrap::{
    BLOBS_MAX, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, CHUNKS_MAX, DEVICE_BYTES_MAX, STORED_BYTES_MAX,
    blob_entry, chunk_entry,
};

const BLOB_ENTRY_BYTES: u64 = 256;
const CHUNK_ENTRY_BYTES: u64 = 80;
/// The largest chunk that an inode can tell the kernel of: 2^31 blocks.
const KERNEL_CHUNK_BYTES_MAX: u64 = 1 << 43;
/// Devices begin at multiples of this in the flat address space that a bootstrap and its blobs form.
const MAPPED_BYTES: u64 = 512 << 10;

/// What holds for a whole image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The size in bytes that files are cut into: a power of two from 4 KiB to 16 MiB.
    pub chunk_bytes: u32,
    /// What the image says its chunks are compressed with.
    pub compression: Compression,
    /// What the image says its chunks are digested with.
    pub digester: Algorithm,
}

/// What a bootstrap is written from.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The tree. Every chunk of a file but its last has [`Options::chunk_bytes`].
    pub tree: &'a Tree,
    /// What is known of each blob of the tree's map, in the same order.
    pub blobs: &'a [BlobInfo],
    /// For every chunk of the tree's map, its index in the chunk-info table of its blob. When the map
    /// has all chunks of all blobs in the order of their tables, [`chunk_indexes_in_order`] gives them.
    pub chunk_indexes: &'a [u32],
    /// Files and directories to fetch first.
    pub prefetch: &'a [NodeId],
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the bootstrap, a multiple of a block.
    pub bytes: u64,
    /// Inodes in it.
    pub inodes: u64,
    /// Chunks that its files consist of, each counted once.
    pub chunks: u64,
    /// Extended attributes that were left out; see [`draught_erofs::Summary::xattrs_left_out`].
    pub xattrs_left_out: u64,
}

/// Why a bootstrap can't be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// More blobs than RAFS can count.
    #[error("{blobs} blobs, an image has {BLOBS_MAX} at most")]
    Blobs {
        /// How many there are.
        blobs: usize,
    },
    /// The lists of the input have not one entry for each of what they speak of.
    #[error("{got} {what}, {expected} were expected")]
    Lists {
        /// What the list has.
        what: &'static str,
        /// How many it has.
        got: usize,
        /// How many it should have.
        expected: usize,
    },
    /// A chunk size that RAFS doesn't have.
    #[error("chunks of {bytes} bytes: a power of two from 4096 to 16777216 is needed")]
    ChunkSize {
        /// The size.
        bytes: u32,
    },
    /// A blob can't be part of an image.
    #[error("blob {index} {problem}")]
    Blob {
        /// Which, from 0.
        index: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A chunk can't be part of an image.
    #[error("chunk {} {problem}", chunk.0)]
    Chunk {
        /// The chunk.
        chunk: ChunkId,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A node to fetch first is not part of the tree.
    #[error("node {} is to be fetched first, but is not part of the tree", node.0)]
    Prefetch {
        /// The node.
        node: NodeId,
    },
    /// Inodes, directories or chunk indexes can't be written.
    #[error("the image's metadata can't be written")]
    Metadata(#[source] draught_erofs::WriteError),
    /// The bytes can't be written.
    #[error("the bootstrap can't be written out")]
    Output(#[source] io::Error),
}

/// The index of every chunk in its blob's table, for a map that has all chunks of all blobs in the order
/// of their tables, as [`crate::blob::ChunkTable::append_to`] makes it.
#[must_use]
pub fn chunk_indexes_in_order(tree: &Tree) -> Vec<u32> {
    let mut next = vec![0_u32; tree.map.blobs.len()];
    let chunks = tree.map.chunks.iter().map(|chunk| {
        let blob = tree.map.blob_of(chunk)?;
        let next = next.get_mut(blob.index())?;
        let index = *next;
        *next = next.saturating_add(1);
        Some(index)
    });
    chunks.map(|index| index.unwrap_or(u32::MAX)).collect()
}

/// Writes a bootstrap.
///
/// # Errors
/// When the tree can't be expressed in RAFS v6, or `out` can't take the bytes.
pub fn write(
    input: &Input<'_>,
    options: &Options,
    out: &mut impl io::Write,
) -> Result<Summary, WriteError> {
    check(input, options)?;
    let content = Addresses { input, options };
    let referenced = content.referenced()?;

    let blobs = u64::try_from(input.blobs.len()).unwrap_or(u64::MAX);
    // Slots are half as long as entries, but a reader of nydus takes one for the other.
    let slots_end = DEVICE_SLOTS_OFFSET + blobs * BLOB_ENTRY_BYTES;
    let blob_table = Table {
        offset: slots_end.next_multiple_of(BLOCK_BYTES),
        bytes: blobs * BLOB_ENTRY_BYTES,
    };
    let prefetch = u64::try_from(input.prefetch.len()).unwrap_or(u64::MAX);
    let tables_end = blob_table.offset + blob_table.bytes;
    let prefetch_table = if prefetch == 0 || blobs == 0 {
        Table::default()
    } else {
        Table {
            offset: tables_end,
            bytes: prefetch * 4,
        }
    };
    let front_bytes = tables_end + prefetch_table.bytes;
    let plan = Plan::new(input.tree, &content, front_bytes).map_err(WriteError::Metadata)?;
    let chunks = referenced.iter().filter(|offset| **offset != UNREFERENCED);
    let chunks = u64::try_from(chunks.count()).unwrap_or(u64::MAX);
    let chunk_table = Table {
        offset: plan.end(),
        bytes: chunks * CHUNK_ENTRY_BYTES,
    };
    let end = (chunk_table.offset + chunk_table.bytes).next_multiple_of(BLOCK_BYTES);
    let inlined = |blob: &BlobInfo| blob.features.contains(BlobFeatures::INLINED_CHUNK_DIGEST);
    let extended = Extended {
        compression: options.compression,
        digester: options.digester,
        has_xattrs: plan.inodes_with_xattrs() != 0,
        inlined_chunk_digest: input.blobs.iter().all(inlined),
        chunk_bytes: options.chunk_bytes,
        blobs: blob_table,
        chunks: chunk_table,
        prefetch: prefetch_table,
    };
    let front = front(input, &plan, &extended, end)?;
    out.write_all(&front).map_err(WriteError::Output)?;
    plan.write(out).map_err(WriteError::Metadata)?;
    content.write_chunk_table(&referenced, out)?;
    let padding = end - (chunk_table.offset + chunk_table.bytes);
    let padding = usize::try_from(padding).unwrap_or_default();
    out.write_all(&vec![0; padding])
        .map_err(WriteError::Output)?;
    Ok(Summary {
        bytes: end,
        inodes: plan.inodes(),
        chunks,
        xattrs_left_out: plan.xattrs_left_out(),
    })
}

fn check(input: &Input<'_>, options: &Options) -> Result<(), WriteError> {
    let map = &input.tree.map;
    if input.blobs.len() > BLOBS_MAX {
        return Err(WriteError::Blobs {
            blobs: input.blobs.len(),
        });
    }
    for (what, got, expected) in [
        ("blob infos", input.blobs.len(), map.blobs.len()),
        ("chunk indexes", input.chunk_indexes.len(), map.chunks.len()),
    ] {
        if got != expected {
            return Err(WriteError::Lists {
                what,
                got,
                expected,
            });
        }
    }
    let bytes = options.chunk_bytes;
    if !bytes.is_power_of_two() || !(CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&bytes) {
        return Err(WriteError::ChunkSize { bytes });
    }
    for (index, blob) in input.blobs.iter().enumerate() {
        let id = blob.digest.map(|digest| digest.algorithm());
        let problem = if id == Some(Algorithm::Blake3) {
            "has no SHA-256 digest"
        } else if blob.chunk_bytes_max != bytes {
            "has another chunk size than the image"
        } else if blob.chunks > CHUNKS_MAX {
            "has more than 2^24 chunks"
        } else if blob.device_bytes > DEVICE_BYTES_MAX {
            "has more than 16 TiB of decoded data"
        } else if blob.stored_bytes > STORED_BYTES_MAX {
            "has more than 1 TiB of stored data"
        } else if blob.device_bytes == 0 {
            "has no data"
        } else {
            continue;
        };
        return Err(WriteError::Blob { index, problem });
    }
    Ok(())
}

/// All bytes before the first inode.
fn front(
    input: &Input<'_>,
    plan: &Plan<'_, Addresses<'_>>,
    extended: &Extended,
    end: u64,
) -> Result<Vec<u8>, WriteError> {
    let superblock = Superblock {
        feature_compat: COMPAT_RAFS_V6,
        root_nid: plan.root_nid(),
        inodes: plan.inodes(),
        // A reader of nydus refuses blocks without devices.
        blocks: if input.blobs.is_empty() {
            0
        } else {
            u32::try_from(end / BLOCK_BYTES).unwrap_or(u32::MAX)
        },
        meta_block: plan.meta_block(),
        feature_incompat: Superblock::INCOMPAT_MAX,
        extra_devices: u16::try_from(input.blobs.len()).unwrap_or(u16::MAX),
        device_slot: u16::try_from(DEVICE_SLOTS_OFFSET / DEVICE_SLOT_BYTES).unwrap_or(0),
        ..Superblock::default()
    };
    let mut front = vec![0; usize::try_from(SUPERBLOCK_OFFSET).unwrap_or(0)];
    front.extend_from_slice(&superblock.encode());
    front.extend_from_slice(&extended.encode());
    let mut mapped = end;
    for (index, blob) in input.blobs.iter().enumerate() {
        mapped = mapped.next_multiple_of(MAPPED_BYTES);
        let out_of_reach = WriteError::Blob {
            index,
            problem: "lies beyond the 16 TiB that an image and its blobs can have together",
        };
        let blocks = u32::try_from(blocks_of(blob.device_bytes)).ok();
        let mapped_block = u32::try_from(mapped / BLOCK_BYTES).ok();
        let (Some(blocks), Some(mapped_block)) = (blocks, mapped_block) else {
            return Err(out_of_reach);
        };
        let slot = DeviceSlot {
            tag: blob_entry::id(blob),
            blocks,
            mapped_block,
        };
        front.extend_from_slice(&slot.encode());
        mapped += u64::from(blocks) * BLOCK_BYTES;
    }
    front.resize(usize::try_from(extended.blobs.offset).unwrap_or(0), 0);
    for (index, blob) in (0..).zip(input.blobs) {
        front.extend_from_slice(&blob_entry::encode(index, blob));
    }
    if extended.prefetch.bytes != 0 {
        for node in input.prefetch.iter().copied() {
            let nid = plan.nid(node).ok_or(WriteError::Prefetch { node })?;
            front.extend_from_slice(&nid.to_le_bytes());
        }
    }
    front.resize(usize::try_from(plan.start()).unwrap_or(0), 0);
    Ok(front)
}

/// The file offset of a chunk that no file has.
const UNREFERENCED: u64 = u64::MAX;

/// What knows the chunk indexes of files.
struct Addresses<'a> {
    input: &'a Input<'a>,
    options: &'a Options,
}

impl Addresses<'_> {
    fn address(&self, id: ChunkId) -> Option<Address> {
        let map = &self.input.tree.map;
        let chunk = map.chunk(id)?;
        let blob = map.blob_of(chunk)?;
        let index = self.input.chunk_indexes.get(id.index()).copied()?;
        let info = self.input.blobs.get(blob.index())?;
        Some(Address {
            blob: blob.0,
            index: Some(index).filter(|index| *index < info.chunks.min(CHUNKS_MAX))?,
            block: chunk_entry::block_of(chunk)?,
        })
    }

    /// For every chunk, where in the first file that has it it begins.
    fn referenced(&self) -> Result<Vec<u64>, WriteError> {
        let map = &self.input.tree.map;
        let mut offsets = vec![UNREFERENCED; map.chunks.len()];
        for node in 0..self.input.tree.arena_len() {
            let Ok(node) = u32::try_from(node) else { break };
            let node = self.input.tree.node(NodeId(node));
            let Kind::File { chunks, .. } = &node.kind else {
                continue;
            };
            if node.names == 0 {
                continue;
            }
            let starts = (0_u64..).step_by(usize::try_from(self.options.chunk_bytes).unwrap_or(1));
            for (id, start) in chunks.iter().copied().zip(starts) {
                let bad = |problem| WriteError::Chunk { chunk: id, problem };
                let chunk = map.chunk(id).ok_or(bad("is not in the map"))?;
                let blob = map.blob_of(chunk).ok_or(bad("has no blob"))?;
                let info = self.input.blobs.get(blob.index());
                if info.is_some_and(|info| info.digester != chunk.digest.algorithm()) {
                    return Err(bad("has a digest of another algorithm than its blob"));
                }
                if let Some(offset) = offsets.get_mut(id.index()) {
                    *offset = start.min(*offset);
                }
            }
        }
        Ok(offsets)
    }

    fn write_chunk_table(
        &self,
        referenced: &[u64],
        out: &mut impl io::Write,
    ) -> Result<(), WriteError> {
        let map = &self.input.tree.map;
        let mut chunks_of = vec![0_u32; map.extents.len()];
        for chunk in &map.chunks {
            if let Some(count) = chunks_of.get_mut(chunk.extent.index()) {
                *count = count.saturating_add(1);
            }
        }
        for ((id, chunk), file_offset) in (0..).map(ChunkId).zip(&map.chunks).zip(referenced) {
            if *file_offset == UNREFERENCED {
                continue;
            }
            let problem = "has no extent, no blob, or no index in its blob's table";
            let bad = WriteError::Chunk { chunk: id, problem };
            let found = self.address(id).zip(map.extent(chunk.extent));
            let (address, extent) = found.ok_or(bad)?;
            let several = chunks_of.get(chunk.extent.index()).is_some_and(|n| *n > 1);
            let batch = several || extent.decoded_bytes != chunk.bytes;
            let entry = chunk_entry::encode(chunk, extent, address, *file_offset, batch);
            out.write_all(&entry).map_err(WriteError::Output)?;
        }
        Ok(())
    }
}

impl Content for Addresses<'_> {
    /// As many indexes as nydus' readers look for. The kernel takes the first ones: a contiguous file
    /// is one chunk to it, so that it reads ahead across chunks.
    fn describe(
        &self,
        _: NodeId,
        file_bytes: u64,
        chunks: &[ChunkId],
        list: &mut ChunkList,
    ) -> Result<(), ContentError> {
        let chunk_bytes = u64::from(self.options.chunk_bytes);
        let chunk_blocks = chunk_bytes / BLOCK_BYTES;
        let mut left = file_bytes;
        let mut contiguous = true;
        let mut last: Option<ChunkIndex> = None;
        for id in chunks.iter().copied() {
            let unplaced = ContentError::Unplaced { chunk: id };
            let chunk = self.input.tree.map.chunk(id);
            let Some((address, chunk)) = self.address(id).zip(chunk) else {
                return Err(unplaced);
            };
            let expected = left.min(chunk_bytes);
            if u64::from(chunk.bytes) != expected || expected == 0 {
                return Err(ContentError::ChunkSize {
                    chunk: id,
                    bytes: u64::from(chunk.bytes),
                    expected,
                });
            }
            left -= expected;
            let index = address.encode();
            if let Some(last) = last {
                let same_blob = last.device & 0xFF == index.device & 0xFF;
                let next = u64::from(last.block) + chunk_blocks == u64::from(index.block);
                contiguous &= same_blob && next;
            }
            last = Some(index);
            list.indexes.push(index);
        }
        if left != 0 {
            return Err(ContentError::Size {
                chunk_bytes: file_bytes - left,
                file_bytes,
            });
        }
        let single = chunk_bytes + 1..=KERNEL_CHUNK_BYTES_MAX;
        let kernel_bytes = if contiguous && single.contains(&file_bytes) {
            file_bytes.next_power_of_two()
        } else {
            chunk_bytes
        };
        list.chunk_bits = kernel_bytes.trailing_zeros();
        Ok(())
    }
}
