//! `cargo xtask bench pack`: whether the bars of the converter are met.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use super::{changed, estargz, linear, merge, nydus};
use crate::bench::convert::NydusImage;
use crate::bench::image::Which;
use crate::bench::suite::command::{self, How};

/// The converter beside its peers: measured against what it may cost
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Only this part; can be repeated
    #[arg(long)]
    part: Vec<Part>,
    /// Only this image, where several are converted; can be repeated
    #[arg(long)]
    image: Vec<Which>,
    /// Compare with this nydus-image instead of the one that tests use
    #[arg(long, value_name = "FILE")]
    nydus: Option<PathBuf>,
    /// Draw what the part "linear" measured into this file, as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Converting to nydus, beside zstd, inflating alone and nydus-image
    Nydus,
    /// Converting to eStargz, beside ctr-remote
    Estargz,
    /// A second version of an image, with a build cache and without
    Changed,
    /// Merging layers of many inodes, beside nydus-image
    Merge,
    /// How the cost grows with files and with bytes
    Linear,
}

impl command::Part for Part {
    fn words(self) -> &'static str {
        match self {
            Self::Nydus => "Converting to nydus",
            Self::Estargz => "Converting to eStargz",
            Self::Changed => "One layer of ten changed",
            Self::Merge => "Merging layers",
            Self::Linear => "Cost by files and bytes",
        }
    }
}

/// Runs the benchmark and prints its numbers.
pub(crate) fn run(args: &Args) -> Result<()> {
    let nydus = match &args.nydus {
        Some(program) => Some(NydusImage::at(program)?),
        None => NydusImage::installed(),
    };
    let images = match args.image.as_slice() {
        [] => &Which::ALL,
        some => some,
    };
    command::run(&args.how, &args.part, |part, bench| match part {
        Part::Nydus => nydus::measure(bench, images, nydus.as_ref()),
        Part::Estargz => estargz::measure(bench, images),
        Part::Changed => changed::measure(bench),
        Part::Merge => merge::measure(bench, nydus.as_ref()),
        Part::Linear => linear::measure(bench, args.svg.as_deref()),
    })
}
