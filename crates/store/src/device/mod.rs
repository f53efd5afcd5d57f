//! One device: a data file, its map, and the order in which they are written.

mod bits;
mod blocks;
mod file;
mod format;
mod map;
mod open;
mod storage;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

pub use file::Device;
pub(crate) use format::BootId;
pub use format::{BLOCK_BYTES, DEVICE_BYTES_MAX};
pub(crate) use open::{Opener, remove_if_there};
