//! The structures of a bootstrap that EROFS doesn't have.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The bit of EROFS' compatible features that says RAFS v6.
pub(crate) const COMPAT_RAFS_V6: u32 = 0x4000_0000;
/// What RAFS v5 has at the beginning of a bootstrap.
pub(crate) const MAGIC_V5: u32 = 0x5241_4653;
/// Where the extended superblock begins.
pub(crate) const EXTENDED_OFFSET: u64 = 1152;
/// Where the device slots begin.
pub(crate) const DEVICE_SLOTS_OFFSET: u64 = 1408;
/// Bytes of a blob's id.
pub(crate) const BLOB_ID_BYTES: usize = 64;

/// The extended superblock.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawExtended {
    pub(crate) flags: U64,
    pub(crate) blob_table_offset: U64,
    pub(crate) blob_table_bytes: U32,
    pub(crate) chunk_bytes: U32,
    pub(crate) chunk_table_offset: U64,
    pub(crate) chunk_table_bytes: U64,
    pub(crate) prefetch_table_offset: U64,
    pub(crate) prefetch_table_bytes: U32,
    pub(crate) padding: U32,
    pub(crate) reserved: [u8; 200],
}
const _: () = assert!(size_of::<RawExtended>() == 256);

/// An entry of the blob table.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawBlob {
    pub(crate) id: [u8; BLOB_ID_BYTES],
    pub(crate) index: U32,
    pub(crate) chunk_bytes: U32,
    pub(crate) chunks: U32,
    pub(crate) compressor: U32,
    pub(crate) digester: U32,
    pub(crate) features: U32,
    pub(crate) stored_bytes: U64,
    pub(crate) device_bytes: U64,
    pub(crate) toc_bytes: U32,
    pub(crate) chunk_info_compressor: U32,
    pub(crate) chunk_info_offset: U64,
    pub(crate) chunk_info_stored_bytes: U64,
    pub(crate) chunk_info_decoded_bytes: U64,
    pub(crate) toc_sha256: [u8; 32],
    /// Of the other blob that holds the tables, when there is one; a key when the blob is encrypted.
    pub(crate) meta_sha256: [u8; 32],
    pub(crate) meta_bytes: U64,
    pub(crate) cipher_iv: [u8; 8],
    pub(crate) cipher: U32,
    pub(crate) reserved: [u8; 36],
}
const _: () = assert!(size_of::<RawBlob>() == 256);

/// An entry of the chunk table: the chunk info of RAFS v5.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawChunk {
    pub(crate) digest: [u8; 32],
    pub(crate) blob: U32,
    pub(crate) flags: U32,
    pub(crate) stored_bytes: U32,
    pub(crate) bytes: U32,
    pub(crate) stored_offset: U64,
    pub(crate) place: U64,
    pub(crate) file_offset: U64,
    pub(crate) index: U32,
    pub(crate) crc32: U32,
}
const _: () = assert!(size_of::<RawChunk>() == 80);

pub(crate) const CHUNK_COMPRESSED: u32 = 0x01;
pub(crate) const CHUNK_HOLE: u32 = 0x02;
pub(crate) const CHUNK_ENCRYPTED: u32 = 0x04;
pub(crate) const CHUNK_BATCH: u32 = 0x08;
pub(crate) const CHUNK_CRC32: u32 = 0x10;
