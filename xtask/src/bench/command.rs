//! `cargo xtask bench`.

use anyhow::Result;
use clap::{Parser, Subcommand};

use super::{first_light, pack, run, store};

/// Runs a benchmark
#[derive(Debug, Parser)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Converting and reading, beside zstd, nydus, eStargz, ext4 and a local EROFS
    FirstLight(first_light::Args),
    /// Deduplication, starts over a slow link, crowds, memory: measured against what they may cost
    Store(store::Args),
    /// The converter beside its peers: measured against what it may cost
    Pack(pack::Args),
    /// Containers on lazily pulled images, beside containerd's own overlays
    Run(run::Args),
    /// Packs an archive that is generated meanwhile: what `pack` runs, to measure a process of its own
    #[command(hide = true)]
    PackGenerated(pack::Generated),
}

/// Runs the benchmark that was asked for.
pub(crate) fn run_benchmark(args: &Args) -> Result<()> {
    match &args.what {
        What::FirstLight(args) => first_light::run(args),
        What::Store(args) => store::run(args),
        What::Pack(args) => pack::run(args),
        What::Run(args) => run::run(args),
        What::PackGenerated(args) => args.run(),
    }
}
