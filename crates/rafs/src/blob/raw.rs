//! The structures of a blob's tables as they are stored.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// At both ends of the chunk-info header.
pub(crate) const CHUNK_INFO_MAGIC: u32 = 0xb10b_b10b;

/// Bytes in the chunk-info header.
pub(crate) const CHUNK_INFO_HEADER_BYTES: usize = 4096;

/// The chunk-info header: where the table is, and what it is made of.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawChunkInfoHeader {
    pub(crate) magic: U32,
    pub(crate) features: U32,
    pub(crate) compressor: U32,
    pub(crate) entries: U32,

    pub(crate) offset: U64,
    pub(crate) stored_bytes: U64,

    pub(crate) decoded_bytes: U64,
    /// Batch contexts (or decoder states): where in the decoded table they begin,
    pub(crate) contexts_offset: U64,

    /// how many bytes they have
    pub(crate) contexts_bytes: U64,
    /// and how many there are.
    pub(crate) contexts: U32,
    pub(crate) reserved: [u8; 4032],
    pub(crate) magic2: U32,
}
const _: () = assert!(size_of::<RawChunkInfoHeader>() == CHUNK_INFO_HEADER_BYTES);

/// A chunk, in 16 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawChunkV1 {
    /// From the lowest bit: 8 unused, 4 of the size (20 to 23), 32 of the place (12 to 43), 20 of the
    /// size (0 to 19). The size is one less than it is.
    pub(crate) decoded: U64,
    /// From the lowest bit: 40 of the offset, 4 of the size (20 to 23), 20 of the size (0 to 19).
    /// The size is one less than it is.
    pub(crate) stored: U64,
}
const _: () = assert!(size_of::<RawChunkV1>() == 16);

/// A chunk, in 24 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawChunkV2 {
    /// From the lowest bit: 32 of the place (12 to 43), 24 of the size less one, 8 of flags.
    pub(crate) decoded: U64,
    /// From the lowest bit: 40 of the offset, 24 of the size (as it is; 0 in batches).
    pub(crate) stored: U64,
    /// Batches: offset in the decoded batch, in the low half; number of the batch, in the high one.
    pub(crate) data: U64,
}
const _: () = assert!(size_of::<RawChunkV2>() == 24);

/// A batch: several chunks encoded as one.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawBatch {
    pub(crate) stored_bytes: U32,
    pub(crate) decoded_bytes: U32,
    pub(crate) reserved: [u8; 32],
}
const _: () = assert!(size_of::<RawBatch>() == 40);

/// An entry of the table of contents.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawTocEntry {
    pub(crate) flags: U32,
    pub(crate) reserved: U32,
    pub(crate) name: [u8; 16],
    pub(crate) digest: [u8; 32],
    pub(crate) offset: U64,
    pub(crate) stored_bytes: U64,
    pub(crate) decoded_bytes: U64,
    pub(crate) reserved2: [u8; 48],
}
const _: () = assert!(size_of::<RawTocEntry>() == 128);

/// A tar header as GNU has it.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawTarHeader {
    pub(crate) name: [u8; 100],
    pub(crate) mode: [u8; 8],
    pub(crate) uid: [u8; 8],
    pub(crate) gid: [u8; 8],
    pub(crate) size: [u8; 12],
    pub(crate) mtime: [u8; 12],
    pub(crate) checksum: [u8; 8],
    pub(crate) kind: u8,
    pub(crate) link: [u8; 100],
    pub(crate) magic: [u8; 8],
    pub(crate) rest: [u8; 247],
}
const _: () = assert!(size_of::<RawTarHeader>() == 512);
