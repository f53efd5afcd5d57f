//! `cargo xtask bench run`: whether the bars of the snapshotter are met.

use anyhow::Result;
use clap::{Parser, ValueEnum};

use super::{calls, layers, metadata, start};
use crate::bench::suite::command::{self, How};

/// Containers on lazily pulled images, beside containerd's own overlays
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
    /// From the pull to the first output: Python, Node, a compiler
    Start,
    /// Prepare, Mounts and Remove among 1,000 snapshots, List of 10,000
    Calls,
    /// Images of 60 layers beside images of 3
    Layers,
    /// Work on names and attributes in a container's root
    Metadata,
}

impl command::Part for Part {
    fn words(self) -> &'static str {
        match self {
            Self::Start => "From the pull to the first output",
            Self::Calls => "Calls of the snapshotter",
            Self::Layers => "Many layers",
            Self::Metadata => "Metadata-heavy work",
        }
    }
}

/// Runs the benchmark and prints its numbers.
pub(crate) fn run(args: &Args) -> Result<()> {
    command::run(&args.how, &args.part, |part, bench| match part {
        Part::Start => start::measure(bench),
        Part::Calls => calls::measure(bench),
        Part::Layers => layers::measure(bench),
        Part::Metadata => metadata::measure(bench),
    })
}
