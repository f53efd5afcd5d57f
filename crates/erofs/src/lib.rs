//! This crate is EROFS: metadata images that the kernel mounts, written from a tree and a placement
//! of its chunks on devices, and read back.
//!
//! Origin: the kernel's `fs/erofs/erofs_fs.h` and `Documentation/filesystems/erofs.rst`, Linux 6.18;
//! what is written here is served by Linux 5.16 and later (device table), by file since 6.12.
//!
//! * [`write()`] writes a whole image for (tree, [`Placement`]). Regular files are chunk-based and point
//!   into extra devices; everything else is in the image itself.
//! * A format that is EROFS and something more takes the pieces: [`Plan`] lays out and
//!   writes inodes, directories and attributes, with chunk indexes in any encoding ([`Content`]);
//!   [`Superblock`] and [`DeviceSlot`] are what stands before them.
//! * [`Image`] reads untrusted images within [`Limits`], [`read_tree`] makes a [`draught_tree::Tree`] of one.
//!
//! Layout and bytes come from one routine that runs twice: the first run learns where every inode
//! comes to lie, the second writes it. Memory: 4 bytes an inode, the largest directory's bytes and
//! what the caller's writer keeps; an image of 440,000 inodes has some 50 MB and is written in a third
//! of a second. Output depends on nothing but the arguments.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod checksum;
mod raw;
mod read;
mod superblock;
mod write;

pub use read::{Dirent, Image, Inode, Layout, Limits, ReadContent, ReadError, ReadTree, read_tree};
pub use superblock::{DeviceSlot, Superblock, TAG_BYTES};
pub use write::{
    ChunkIndex, ChunkList, Content, ContentError, Device, Options, Place, Placement, Plan, Summary,
    WriteError, write,
};

/// Bytes of a block, the only size that is written and read here.
pub const BLOCK_BYTES: u64 = draught_tree::BLOCK_BYTES;
/// Log2 of [`BLOCK_BYTES`].
pub const BLOCK_BITS: u32 = 12;
/// Bytes from one inode number to the next.
pub const SLOT_BYTES: u64 = 32;
/// Where the superblock begins.
pub const SUPERBLOCK_OFFSET: u64 = 1024;
/// Bytes of the superblock.
pub const SUPERBLOCK_BYTES: u64 = 128;
/// Bytes of a slot of the device table, which begins at a multiple of it.
pub const DEVICE_SLOT_BYTES: u64 = 128;
/// Bytes of one chunk index.
pub const CHUNK_INDEX_BYTES: u64 = 8;
