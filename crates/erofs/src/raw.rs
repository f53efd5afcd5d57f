//! The structures as they are on disk.

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// "EROFS v1" in the superblock.
pub(crate) const MAGIC: u32 = 0xE0F5_E1E2;
/// Compatible feature: the superblock's block has a CRC32C.
pub(crate) const COMPAT_CHECKSUM: u32 = 0x1;
/// Incompatible feature: chunk-based files (Linux 5.15).
pub(crate) const INCOMPAT_CHUNKED_FILE: u32 = 0x4;
/// Incompatible feature: extra devices (Linux 5.16).
pub(crate) const INCOMPAT_DEVICE_TABLE: u32 = 0x8;

/// `i_format`: the inode has 64 bytes.
pub(crate) const FORMAT_EXTENDED: u16 = 0x1;
/// `i_format`: where the data layout begins.
pub(crate) const FORMAT_LAYOUT_SHIFT: u32 = 1;
/// `i_format`: the data layout's bits, shifted down.
pub(crate) const FORMAT_LAYOUT_MASK: u16 = 0x7;
/// All of the data in blocks.
pub(crate) const LAYOUT_PLAIN: u16 = 0;
/// Whole blocks in blocks, the tail after the inode.
pub(crate) const LAYOUT_INLINE: u16 = 2;
/// Chunk indexes after the inode.
pub(crate) const LAYOUT_CHUNKED: u16 = 4;

/// Chunk format: indexes of 8 bytes rather than block addresses of 4.
pub(crate) const CHUNK_INDEXES: u32 = 0x20;
/// Chunk format: log2 of the chunk's blocks.
pub(crate) const CHUNK_BITS_MASK: u32 = 0x1F;

/// The address of no block: a hole.
pub(crate) const NULL_BLOCK: u32 = u32::MAX;

#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawSuperblock {
    pub(crate) magic: U32,
    pub(crate) checksum: U32,
    pub(crate) feature_compat: U32,
    pub(crate) block_bits: u8,
    pub(crate) ext_slots: u8,
    pub(crate) root_nid: U16,
    pub(crate) inodes: U64,
    pub(crate) build_time: U64,
    pub(crate) build_time_nsec: U32,
    pub(crate) blocks: U32,
    pub(crate) meta_block: U32,
    pub(crate) xattr_block: U32,
    pub(crate) uuid: [u8; 16],
    pub(crate) volume_name: [u8; 16],
    pub(crate) feature_incompat: U32,
    pub(crate) compression: U16,
    pub(crate) extra_devices: U16,
    pub(crate) device_slot: U16,
    pub(crate) reserved: [u8; 38],
}
const _: () = assert!(size_of::<RawSuperblock>() == 128);

#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawDeviceSlot {
    pub(crate) tag: [u8; 64],
    pub(crate) blocks: U32,
    pub(crate) mapped_block: U32,
    pub(crate) reserved: [u8; 56],
}
const _: () = assert!(size_of::<RawDeviceSlot>() == 128);

#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawInodeCompact {
    pub(crate) format: U16,
    pub(crate) xattr_count: U16,
    pub(crate) mode: U16,
    pub(crate) links: U16,
    pub(crate) bytes: U32,
    pub(crate) reserved: U32,
    pub(crate) union: U32,
    pub(crate) ino: U32,
    pub(crate) uid: U16,
    pub(crate) gid: U16,
    pub(crate) reserved2: U32,
}
const _: () = assert!(size_of::<RawInodeCompact>() == 32);

#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawInodeExtended {
    pub(crate) format: U16,
    pub(crate) xattr_count: U16,
    pub(crate) mode: U16,
    pub(crate) reserved: U16,
    pub(crate) bytes: U64,
    pub(crate) union: U32,
    pub(crate) ino: U32,
    pub(crate) uid: U32,
    pub(crate) gid: U32,
    pub(crate) mtime: I64,
    pub(crate) mtime_nsec: U32,
    pub(crate) links: U32,
    pub(crate) reserved2: [u8; 16],
}
const _: () = assert!(size_of::<RawInodeExtended>() == 64);

#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawDirent {
    pub(crate) nid: U64,
    pub(crate) name_offset: U16,
    pub(crate) file_type: u8,
    pub(crate) reserved: u8,
}
const _: () = assert!(size_of::<RawDirent>() == 12);

#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawXattrHeader {
    pub(crate) name_filter: U32,
    pub(crate) shared_count: u8,
    pub(crate) reserved: [u8; 7],
}
const _: () = assert!(size_of::<RawXattrHeader>() == 12);

#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawXattrEntry {
    pub(crate) name_bytes: u8,
    pub(crate) name_index: u8,
    pub(crate) value_bytes: U16,
}
const _: () = assert!(size_of::<RawXattrEntry>() == 4);

#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawChunkIndex {
    pub(crate) block_high: U16,
    pub(crate) device: U16,
    pub(crate) block: U32,
}
const _: () = assert!(size_of::<RawChunkIndex>() == 8);

/// Names of attributes are stored as the number of a prefix and what follows it. The kernel shows
/// no others.
pub(crate) const XATTR_PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];

/// File types as `st_mode` and as directory entries have them.
pub(crate) const FILE_TYPES: [(u32, u8); 7] = [
    (0o100_000, 1),
    (0o040_000, 2),
    (0o020_000, 3),
    (0o060_000, 4),
    (0o010_000, 5),
    (0o140_000, 6),
    (0o120_000, 7),
];

/// The bits of `st_mode` that say the type.
pub(crate) const MODE_TYPE_MASK: u32 = 0o170_000;
