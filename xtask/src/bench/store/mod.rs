//! What the store, the prefetcher and the index are for, measured against what they may cost.

mod attach;
mod bar;
mod bench;
mod command;
mod counted;
mod crowd;
mod dedup;
mod generated;
mod memory;
mod overlay;
mod packings;
mod plenty;
mod program;
mod read;
mod report;
mod sheet;
mod start;
mod unit;

pub(crate) use command::{Args, run};
