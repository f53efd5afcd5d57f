//! The chunk map: where the content of files lies.

use draught_digest::Digest;

use crate::offset::{BlobOffset, ChunkOffset, DeviceOffset};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            /// The index as a `usize`.
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id!(
    /// Index of a [`Blob`] in its [`ChunkMap`].
    BlobId
);
id!(
    /// Index of an [`Extent`] in its [`ChunkMap`].
    ExtentId
);
id!(
    /// Index of a [`Chunk`] in its [`ChunkMap`].
    ChunkId
);

/// How an extent is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// As it is.
    None,
    /// One raw LZ4 block; its decoded length is known from outside.
    Lz4Block,
    /// One or more zstd frames.
    Zstd,
    /// One or more gzip members. They may decode to more than the extent has: the rest is nobody's.
    Gzip,
}

/// The stored bytes of a layer, as the registry has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// The digest under which a source has it.
    pub digest: Digest,
    /// Stored size in bytes, of the whole blob.
    pub stored_bytes: u64,
    /// Size in bytes of the device that holds this blob's chunks; a multiple of a block.
    pub device_bytes: u64,
}

/// The smallest range of a blob that can be decoded by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The blob that it is part of.
    pub blob: BlobId,
    /// Where its stored bytes begin.
    pub offset: BlobOffset,
    /// Stored size in bytes.
    pub stored_bytes: u32,
    /// Decoded size in bytes.
    pub decoded_bytes: u32,
    /// How it is stored.
    pub compression: Compression,
}

/// A piece of file content with a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Digest of the decoded bytes.
    pub digest: Digest,
    /// The extent that it is decoded from.
    pub extent: ExtentId,
    /// Where in the decoded extent it begins.
    pub offset: ChunkOffset,
    /// Decoded size in bytes; at least 1.
    pub bytes: u32,
    /// Where in its blob's device it belongs; aligned to a block. Two chunks of a blob never share
    /// a block of the device.
    pub place: DeviceOffset,
}

/// All blobs, extents and chunks of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChunkMap {
    /// The blobs, in the order in which the image names them.
    pub blobs: Vec<Blob>,
    /// The extents.
    pub extents: Vec<Extent>,
    /// The chunks.
    pub chunks: Vec<Chunk>,
}

fn next_index(len: usize) -> Option<u32> {
    u32::try_from(len).ok()
}

impl ChunkMap {
    /// The blob of that index.
    #[must_use]
    pub fn blob(&self, id: BlobId) -> Option<&Blob> {
        self.blobs.get(id.index())
    }

    /// The extent of that index.
    #[must_use]
    pub fn extent(&self, id: ExtentId) -> Option<&Extent> {
        self.extents.get(id.index())
    }

    /// The chunk of that index.
    #[must_use]
    pub fn chunk(&self, id: ChunkId) -> Option<&Chunk> {
        self.chunks.get(id.index())
    }

    /// The blob that a chunk is stored in.
    #[must_use]
    pub fn blob_of(&self, chunk: &Chunk) -> Option<BlobId> {
        self.extent(chunk.extent).map(|extent| extent.blob)
    }

    /// Adds a blob; `None` when 2^32 are there already.
    pub fn push_blob(&mut self, blob: Blob) -> Option<BlobId> {
        let id = BlobId(next_index(self.blobs.len())?);
        self.blobs.push(blob);
        Some(id)
    }

    /// Adds an extent; `None` when 2^32 are there already.
    pub fn push_extent(&mut self, extent: Extent) -> Option<ExtentId> {
        let id = ExtentId(next_index(self.extents.len())?);
        self.extents.push(extent);
        Some(id)
    }

    /// Adds a chunk; `None` when 2^32 are there already.
    pub fn push_chunk(&mut self, chunk: Chunk) -> Option<ChunkId> {
        let id = ChunkId(next_index(self.chunks.len())?);
        self.chunks.push(chunk);
        Some(id)
    }
}
