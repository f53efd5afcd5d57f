//! `cargo xtask bench store`: whether the bars of the store and the prefetcher are met.

use anyhow::Result;
use clap::{Parser, ValueEnum};

use super::{attach, crowd, dedup, memory, read, start};
use crate::bench::suite::command::{self, How};

/// Deduplication, starts over a slow link, crowds, memory: measured against what they may cost
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Only this part; can be repeated
    #[arg(long)]
    part: Vec<Part>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What deduplication costs the first image and saves the next
    Dedup,
    /// Starts of Python, Node and a compiler over a slow link
    Start,
    /// Fifty mounts of one image at once
    Crowd,
    /// Memory of the daemon with many files mounted
    Memory,
    /// Attaching an image to a store that has much already
    Attach,
    /// Reading, beside nydusd and a local EROFS
    Read,
}

impl command::Part for Part {
    fn words(self) -> &'static str {
        match self {
            Self::Dedup => "Deduplication",
            Self::Start => "Starts over a link of 50 ms and 100 MB/s",
            Self::Crowd => "A crowd",
            Self::Memory => "Memory",
            Self::Attach => "Attaching to a full store",
            Self::Read => "Reading",
        }
    }
}

/// Runs the benchmark and prints its numbers.
pub(crate) fn run(args: &Args) -> Result<()> {
    command::run(&args.how, &args.part, |part, bench| match part {
        Part::Dedup => dedup::measure(bench),
        Part::Start => start::measure(bench),
        Part::Crowd => crowd::measure(bench),
        Part::Memory => memory::measure(bench),
        Part::Attach => attach::measure(bench),
        Part::Read => read::measure(bench),
    })
}
