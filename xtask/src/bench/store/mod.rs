//! What the store, the prefetcher and the index are for, measured against what they may cost.

mod attach;
mod command;
mod crowd;
mod dedup;
mod memory;
mod overlay;
mod packings;
mod plenty;
mod program;
mod read;
mod start;

pub(crate) use command::{Args, run};
