//! What belongs where on a device: its chunk table, and second digests of the same chunks.

mod file;
mod format;
mod records;
mod twins;

#[cfg(test)]
mod tests;

pub(crate) use file::{TableFile, check_chunks, digests_agree};
pub use format::{TableChunk, TableFault};
pub(crate) use records::{Record, Records};
pub(crate) use twins::Twins;
