//! This crate is the node's chunk store: sparse device files and the presence of their blocks, durable in the right order.
//!
//! # On disk
//!
//! ```text
//! lock                  held exclusively by the one process that has the store open
//! version               the layout's version
//! devices/<key>.data    a sparse file of 4 KiB blocks: what the kernel reads
//! devices/<key>.map     which of its blocks are present
//! devices/<key>.chunks  which chunks belong where on it
//! devices/<key>.twins   other digests of these chunks
//! images/<name>/…       small files that belong to an image, replaced whole
//! ```
//!
//! # When a block counts
//!
//! A block is present when its bit says so; holes prove nothing. Each map holds two bits per block:
//!
//! * *volatile*: the data was given to the page cache. Survives the death of the process, not that of
//!   the machine, and therefore counts only under the boot id that the map's header names.
//! * *durable*: the data was on disk before the bit was written. Counts always.
//!
//! [`Device::mark_present`] sets volatile bits, [`Device::sync`] turns them into durable ones: it takes
//! a snapshot of the bits, makes the data durable, writes the durable bits and makes those durable. When
//! the data can't be made durable, what was not durable before is not believed again by anybody, for a
//! kernel that failed to write a page back may have dropped it: the device is *poisoned* until it is
//! opened anew.
//!
//! A map vouches for one data file alone: it is bound to the file's inode and its time of birth, and
//! every sector of it carries a checksum over that. A map that is missing, damaged, or belongs to another
//! file is not believed: the device starts empty, with a warning.
//!
//! # What this does not notice
//!
//! A disk that vanishes and returns while the machine stays up (the page cache is lost but the boot id
//! stays), and data changed by others behind the store's back.
#![forbid(unsafe_code)]

mod device;
mod error;
mod find;
mod image;
mod index;
mod key;
mod layout;
mod reader;
mod store;
mod table;
mod tables;

pub use device::{BLOCK_BYTES, DEVICE_BYTES_MAX, Device};
pub use error::{DeviceError, OpenError, WriteError};
pub use find::{Found, IndexStats};
pub use image::IMAGE_FILE_BYTES_MAX;
pub use key::{DeviceKey, ParseDeviceKeyError};
pub use reader::{DeviceReader, Reader};
pub use store::Store;
pub use table::{TableChunk, TableFault};
pub use tables::DeviceUsage;
