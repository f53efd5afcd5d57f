//! From what was typed to how an image is converted.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail};
use clap::ValueEnum;
use draught_digest::Algorithm;
use draught_oci::{Platform, PlatformError};
use draught_packer::{
    ArchiveFormat, ArchiveOptions, EstargzOptions, GZIP_LEVEL_DEFAULT, Output, PackOptions,
    PlatformChoice,
};
use draught_tree::Compression;

use crate::commands::profile;
use crate::units::Size;

/// Formats that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// RAFS v6, as nydus has it: data blobs and a bootstrap that the kernel mounts as EROFS
    Nydus,
    /// Layers that every client can pull, with a table of where each file is
    Estargz,
    /// Layers that every client can pull, in gzip or zstd
    Oci,
}

/// Compressions of chunks and layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compressor {
    /// Small, and fast to read (nydus, oci)
    Zstd,
    /// Larger, and the fastest to read (nydus)
    Lz4,
    /// As they are (nydus)
    None,
    /// What every client knows (estargz, oci)
    Gzip,
}

/// Digests of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Digester {
    /// BLAKE3, the faster one
    Blake3,
    /// SHA-256
    Sha256,
}

/// How layers are written.
#[derive(Debug, clap::Args)]
pub(crate) struct OutputArgs {
    /// The format to write
    #[arg(long, value_enum, default_value_t = Target::Nydus)]
    to: Target,

    /// Files are cut into chunks of this size: for nydus a power of two from 4KiB to 16MiB, for estargz a
    /// multiple of 4KiB up to 16MiB [default: 1MiB for nydus, 4MiB for estargz]
    #[arg(long, value_name = "SIZE")]
    chunk_size: Option<Size>,

    /// Small files share compressed units of this size: smaller images, but nydusd before 2.3, and readers
    /// of eStargz from before 2023, can't read them. 0 for none [default: 0]
    #[arg(long, value_name = "SIZE")]
    batch_size: Option<Size>,

    /// How chunks or layers are compressed [default: zstd for nydus, gzip for estargz and oci]
    #[arg(long, value_enum)]
    compressor: Option<Compressor>,

    /// The level: 1 to 22 for zstd, 1 to 12 for gzip [default: 3 and 6]
    #[arg(long, value_name = "LEVEL")]
    level: Option<i32>,

    /// How chunks are named and verified [default: blake3; estargz has sha256]
    #[arg(long, value_enum)]
    digester: Option<Digester>,

    /// Write into the image which files its start reads, so that they are fetched as soon as it is mounted:
    /// a profile as "draught profile export" writes it, - is standard input
    #[arg(long, value_name = "PROFILE")]
    prefetch: Option<PathBuf>,

    /// Threads that compress [default: one a processor]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Where blobs lie until they are sent: needs room for the largest one
    #[arg(long, value_name = "DIR", env = "TMPDIR", default_value = "/var/tmp")]
    scratch: PathBuf,
}

impl OutputArgs {
    /// How to write layers, or why it can't be done like that.
    pub(crate) fn output(&self) -> Result<Output> {
        let output = match self.to {
            Target::Nydus => Output::Nydus(self.nydus()?),
            Target::Estargz => self.archives(self.estargz()?),
            Target::Oci => self.archives(self.oci()?),
        };
        output.check()?;
        Ok(output)
    }

    fn nydus(&self) -> Result<PackOptions> {
        let mut options = PackOptions {
            compression: match self.compressor {
                Some(Compressor::Zstd) | None => Compression::Zstd,
                Some(Compressor::Lz4) => Compression::Lz4Block,
                Some(Compressor::None) => Compression::None,
                Some(Compressor::Gzip) => {
                    bail!(
                        "use --compressor gzip: nydus has no such chunks; choose zstd, lz4 or none"
                    )
                }
            },
            digester: match self.digester {
                Some(Digester::Blake3) | None => Algorithm::Blake3,
                Some(Digester::Sha256) => Algorithm::Sha256,
            },
            spool_dir: self.scratch.clone(),
            prefetch: self.prefetch()?,
            ..PackOptions::default()
        };
        // What does not fit is over every limit, and is refused as such.
        let bytes = |size: &Size| u32::try_from(size.0).unwrap_or(u32::MAX);
        if let Some(size) = &self.chunk_size {
            options.chunk_bytes = bytes(size);
        }
        if let Some(size) = &self.batch_size {
            options.batch_bytes = bytes(size);
        }
        if let Some(level) = self.level {
            options.level = level;
        }
        if let Some(threads) = self.threads {
            options.threads = threads;
        }
        Ok(options)
    }

    fn estargz(&self) -> Result<ArchiveFormat> {
        if !matches!(self.compressor, None | Some(Compressor::Gzip)) {
            bail!("use that --compressor: eStargz is gzip");
        }
        if self.digester == Some(Digester::Blake3) {
            bail!("use --digester blake3: eStargz has SHA-256");
        }
        let mut options = EstargzOptions {
            level: self.gzip_level(),
            prefetch: self.prefetch()?,
            ..EstargzOptions::default()
        };
        if let Some(size) = &self.chunk_size {
            options.chunk_bytes = size.0;
        }
        if let Some(size) = &self.batch_size {
            options.pack_bytes = size.0;
        }
        Ok(ArchiveFormat::Estargz(options))
    }

    fn oci(&self) -> Result<ArchiveFormat> {
        let given = [
            ("--chunk-size", self.chunk_size.is_some()),
            ("--batch-size", self.batch_size.is_some()),
            ("--digester", self.digester.is_some()),
            ("--prefetch", self.prefetch.is_some()),
        ];
        if let Some((name, _)) = given.iter().find(|(_, given)| *given) {
            bail!("use {name}: layers of --to oci are not cut into chunks");
        }
        Ok(match self.compressor {
            None | Some(Compressor::Gzip) => ArchiveFormat::Gzip {
                level: self.gzip_level(),
            },
            Some(Compressor::Zstd) => ArchiveFormat::Zstd {
                level: self.level.unwrap_or(PackOptions::default().level),
            },
            Some(Compressor::Lz4 | Compressor::None) => {
                bail!("use that --compressor: choose gzip or zstd for --to oci")
            }
        })
    }

    /// What does not fit is over every limit, and is refused as such.
    fn gzip_level(&self) -> u32 {
        let level = self.level.map(|level| u32::try_from(level).unwrap_or(0));
        level.unwrap_or(GZIP_LEVEL_DEFAULT)
    }

    fn archives(&self, format: ArchiveFormat) -> Output {
        let mut options = ArchiveOptions::new(format);
        options.spool_dir.clone_from(&self.scratch);
        if let Some(threads) = self.threads {
            options.threads = threads;
        }
        Output::Archives(options)
    }

    fn prefetch(&self) -> Result<Vec<Vec<u8>>> {
        let Some(file) = &self.prefetch else {
            return Ok(Vec::new());
        };
        let touches = profile::read(file)?.touches.into_iter();
        let mut paths: Vec<Vec<u8>> = touches.map(|touch| touch.path).collect();
        paths.dedup();
        Ok(paths)
    }
}

/// One platform or all of them, as it is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PlatformArg {
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
    pub(crate) fn choice(self) -> PlatformChoice {
        match self {
            Self::All => PlatformChoice::All,
            Self::One(platform) => PlatformChoice::One(platform),
        }
    }
}

/// An annotation, as it is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Annotation {
    key: String,
    value: String,
}

impl FromStr for Annotation {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err("an annotation is KEY=VALUE"),
        }
    }
}

/// Of two with the same key, the last one counts.
pub(crate) fn annotations(all: &[Annotation]) -> BTreeMap<String, String> {
    let pairs = all.iter().cloned();
    pairs.map(|it| (it.key, it.value)).collect()
}
