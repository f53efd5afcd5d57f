//! One device: a data file, its map, and the order in which they are written.

mod bits;
mod blocks;
mod claims;
mod file;
mod format;
mod glimpse;
mod map;
mod open;
mod paths;
mod punch;
mod storage;

#[cfg(test)]
pub(crate) mod sim;
#[cfg(test)]
mod tests;

pub(crate) use bits::{narrow, widen};
pub use file::Device;
pub(crate) use format::BootId;
pub use format::{BLOCK_BYTES, DEVICE_BYTES_MAX};
pub(crate) use glimpse::Glimpse;
pub(crate) use open::{Opener, io, options, remove_if_there};
pub(crate) use storage::{FileStorage, Storage};
