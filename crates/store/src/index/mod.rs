//! Where chunks are: an index of all tables in memory.

mod fingerprints;
mod shard;

#[cfg(test)]
mod tests;

pub(crate) use fingerprints::{Candidate, Index, Source};
