//! The command.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use draught_digest::Algorithm;
use draught_oci::{Location, Platform, PlatformError};
use draught_packer::{
    CACHE_LAYERS_DEFAULT, CACHE_LAYERS_MAX, CacheLocation, CacheOptions, ConvertOptions,
    PackOptions, PlatformChoice, convert,
};
use draught_tree::Compression;

use super::report::Report;
use super::tracker::Tracker;
use crate::args::Format;
use crate::commands::profile;
use crate::outcome::Outcome;
use crate::settings::Settings;
use crate::units::Size;
use crate::{asynchronous, open, output};

/// Write an image in a format that can be read lazily
///
/// Layers are streamed: none is unpacked to disk or held in memory. The same image with the same
/// options gives the same bytes, on any number of threads. What the destination has already is not
/// sent again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
SRC and DST are one of:
  HOST/REPO:TAG, HOST/REPO@sha256:…   an image in a registry
  oci:DIR[:TAG]                       a directory in the OCI layout
  docker-archive:FILE[:NAME[:TAG]]    what docker save writes, may be in gzip; DST replaces FILE
  dir:ROOTFS                          a directory of files (SRC only)

Examples:
  draught convert docker.io/library/python:3.12 127.0.0.1:5000/python:3.12
  draught convert --platform all registry.example/app:1 registry.example/app:1-lazy
  draught convert --cache registry:registry.example/cache:app SRC registry.example/app:1-lazy
  draught convert --compressor lz4 --chunk-size 256KiB oci:./app oci:./app-lazy
  draught convert docker-archive:app.tar.gz docker-archive:lazy.tar:app:1")]
pub(crate) struct Args {
    /// The image to read
    src: Location,

    /// Where to write the new one
    dst: Location,

    /// The format to write
    #[arg(long, value_enum, default_value_t = Target::Nydus)]
    to: Target,

    /// Which image of a multi-platform one: OS/ARCH[/VARIANT], or all [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<PlatformArg>,

    /// Files are cut into chunks of this size: a power of two from 4KiB to 16MiB
    #[arg(long, value_name = "SIZE", default_value = "1MiB")]
    chunk_size: Size,

    /// Small files share compressed units of this size, a power of two up to the chunk size: smaller
    /// images, but nydusd before 2.3 can't read them. 0 for none
    #[arg(long, value_name = "SIZE", default_value = "0")]
    batch_size: Size,

    /// How chunks are compressed
    #[arg(long, value_enum, default_value_t = Compressor::Zstd)]
    compressor: Compressor,

    /// The level for zstd, 1 to 22 [default: 3]
    #[arg(long, value_name = "LEVEL")]
    level: Option<i32>,

    /// How chunks are named and verified
    #[arg(long, value_enum, default_value_t = Digester::Blake3)]
    digester: Digester,

    /// Write into the image which files its start reads, so that they are fetched as soon as it is mounted:
    /// a profile as "draught profile export" writes it, - is standard input
    #[arg(long, value_name = "PROFILE")]
    prefetch: Option<PathBuf>,

    /// Take layers that were converted before from here, and keep the layers of this conversion here for the
    /// next one; more than once for several. One of dir:PATH (a directory of its own),
    /// registry:HOST/REPO:TAG (a tag of its own), inline (the image that DST has now, and the new one)
    #[arg(long, value_name = "CACHE")]
    cache: Vec<CacheLocation>,

    /// Layers that each --cache keeps: those that were used last
    #[arg(long, value_name = "N", default_value_t = CACHE_LAYERS_DEFAULT, value_parser = cache_size)]
    cache_size: usize,

    /// Threads that compress [default: one a processor]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Where blobs lie until they are sent: needs room for the largest one
    #[arg(long, value_name = "DIR", env = "TMPDIR", default_value = "/var/tmp")]
    scratch: PathBuf,
}

/// Formats that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// RAFS v6, as nydus has it: data blobs and a bootstrap that the kernel mounts as EROFS
    Nydus,
}

/// Compressions of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compressor {
    /// Small, and fast to read
    Zstd,
    /// Larger, and the fastest to read
    Lz4,
    /// As they are
    None,
}

/// Digests of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Digester {
    /// BLAKE3, the faster one
    Blake3,
    /// SHA-256
    Sha256,
}

fn cache_size(text: &str) -> Result<usize, String> {
    let sizes = 1..=CACHE_LAYERS_MAX;
    let size = text.parse().ok().filter(|size| sizes.contains(size));
    size.ok_or_else(|| format!("a cache keeps 1 to {CACHE_LAYERS_MAX} layers"))
}

/// One platform or all of them, as it is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PlatformArg {
    All,
    One(Platform),
}

impl FromStr for PlatformArg {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            text => text.parse().map(Self::One),
        }
    }
}

impl PlatformArg {
    fn choice(self) -> PlatformChoice {
        match self {
            Self::All => PlatformChoice::All,
            Self::One(platform) => PlatformChoice::One(platform),
        }
    }
}

impl Args {
    /// How to pack, or why it can't be done like that.
    fn pack_options(&self) -> Result<PackOptions> {
        let mut options = PackOptions {
            compression: match self.compressor {
                Compressor::Zstd => Compression::Zstd,
                Compressor::Lz4 => Compression::Lz4Block,
                Compressor::None => Compression::None,
            },
            digester: match self.digester {
                Digester::Blake3 => Algorithm::Blake3,
                Digester::Sha256 => Algorithm::Sha256,
            },
            // What does not fit is over every limit, and is refused as such.
            chunk_bytes: u32::try_from(self.chunk_size.0).unwrap_or(u32::MAX),
            batch_bytes: u32::try_from(self.batch_size.0).unwrap_or(u32::MAX),
            spool_dir: self.scratch.clone(),
            ..PackOptions::default()
        };
        if let Some(level) = self.level {
            options.level = level;
        }
        if let Some(file) = &self.prefetch {
            let profile = profile::read(file)?;
            options.prefetch = profile
                .touches
                .into_iter()
                .map(|touch| touch.path)
                .collect();
            options.prefetch.dedup();
        }
        if let Some(threads) = self.threads {
            options.threads = threads;
        }
        options.check().context("pack like that")?;
        Ok(options)
    }
}

pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Outcome> {
    let options = ConvertOptions {
        pack: args.pack_options()?,
        platform: args
            .platform
            .clone()
            .map_or_else(PlatformChoice::default, PlatformArg::choice),
        cache: CacheOptions {
            locations: args.cache.clone(),
            layers_max: args.cache_size,
        },
    };
    let start = Instant::now();
    let tracker = Arc::new(Tracker::new(settings.progress));
    let converted = asynchronous::run(async {
        let client = open::client(settings);
        let progress = Arc::clone(&tracker);
        convert(&client, &args.src, &args.dst, &options, progress)
            .await
            .with_context(|| format!("convert {} to {}", args.src, args.dst))
    })?;
    drop(tracker);
    let report = Report::new(&args.src, &args.dst, &converted, start.elapsed());
    match settings.format {
        Format::Json => output::json(&report)?,
        Format::Text => output::data(&report.text())?,
    }
    Ok(Outcome::Done)
}
