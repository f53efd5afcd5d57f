//! In which format layers are written.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use draught_codec::LayerLimits;
use draught_digest::{Algorithm, Digest, Hasher};
use draught_tree::BLOCK_BYTES;

use crate::cache::{CacheKey, WRITER_VERSION};
use crate::options::{OptionsError, PackOptions};

/// In which format an image's layers are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// nydus: data blobs and a bootstrap, RAFS v6.
    Nydus(PackOptions),
    /// Layers that every client can pull and unpack, one for each.
    Archives(ArchiveOptions),
}

impl Default for Output {
    fn default() -> Self {
        Self::Nydus(PackOptions::default())
    }
}

/// How layers are written that are archives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// What kind they are of.
    pub format: ArchiveFormat,
    /// Threads that compress.
    pub threads: NonZeroUsize,
    /// Where layers lie until they are pushed: unlinked files, so nothing is left after a crash.
    pub spool_dir: PathBuf,
    /// What a layer may ask for as a stream.
    pub layer_limits: LayerLimits,
    /// What it may ask for as an archive.
    pub tar_limits: draught_tar::Limits,
}

impl ArchiveOptions {
    /// A format, and for the rest what is right where nothing else is said.
    #[must_use]
    pub fn new(format: ArchiveFormat) -> Self {
        let PackOptions {
            threads,
            spool_dir,
            layer_limits,
            tar_limits,
            ..
        } = PackOptions::default();
        Self {
            format,
            threads,
            spool_dir,
            layer_limits,
            tar_limits,
        }
    }
}

/// A kind of archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// tar+gzip whose files can be found and read one by one.
    Estargz(EstargzOptions),
    /// tar+gzip.
    Gzip {
        /// The level, 1 to [`GZIP_LEVEL_MAX`].
        level: u32,
    },
    /// tar+zstd.
    Zstd {
        /// The level, 1 to 22.
        level: i32,
    },
}

/// How eStargz layers are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EstargzOptions {
    /// The level of gzip, 1 to [`GZIP_LEVEL_MAX`].
    pub level: u32,
    /// The size in bytes that files are cut into.
    pub chunk_bytes: u64,
    /// Small files share a gzip member until it holds so many bytes; 0 for none. Readers of before 2023
    /// do not know members with several files.
    pub pack_bytes: u64,
    /// Paths of files that a start of the image reads, in that order: each layer begins with those of
    /// them that it has.
    pub prefetch: Vec<Vec<u8>>,
}

impl Default for EstargzOptions {
    fn default() -> Self {
        Self {
            level: GZIP_LEVEL_DEFAULT,
            chunk_bytes: 4 << 20,
            pack_bytes: 0,
            prefetch: Vec::new(),
        }
    }
}

/// The level of gzip when nobody asks for another.
pub const GZIP_LEVEL_DEFAULT: u32 = draught_estargz::LEVEL_DEFAULT;
/// The highest level of gzip.
pub const GZIP_LEVEL_MAX: u32 = draught_estargz::LEVEL_MAX;

impl Output {
    /// Where blobs lie until they are pushed.
    pub(crate) fn spool_dir(&self) -> &Path {
        match self {
            Self::Nydus(options) => &options.spool_dir,
            Self::Archives(options) => &options.spool_dir,
        }
    }

    /// What determines the bytes of an image, as a text for digests.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Nydus(options) => {
                let key = CacheKey::root(options, WRITER_VERSION);
                let prefetch = paths_key(&options.prefetch);
                format!("{key}\nprefetch {prefetch}\n")
            }
            Self::Archives(options) => options.format.key(),
        }
    }

    /// Its name for people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nydus(_) => "nydus",
            Self::Archives(options) => match options.format {
                ArchiveFormat::Estargz(_) => "eStargz",
                ArchiveFormat::Gzip { .. } => "gzip",
                ArchiveFormat::Zstd { .. } => "zstd",
            },
        }
    }

    /// Checks that layers can be written like that.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn check(&self) -> Result<(), OptionsError> {
        match self {
            Self::Nydus(options) => options.check(),
            Self::Archives(options) => options.format.check(),
        }
    }
}

/// The digest of a list of paths.
fn paths_key(paths: &[Vec<u8>]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for path in paths {
        hasher.update(&(path.len() as u64).to_le_bytes());
        hasher.update(path);
    }
    hasher.finish()
}

/// The sizes that files of an eStargz layer may be cut into, in bytes.
const ESTARGZ_CHUNK_BYTES: std::ops::RangeInclusive<u64> =
    BLOCK_BYTES..=draught_estargz::CHUNK_BYTES_MAX;

impl ArchiveFormat {
    fn check(&self) -> Result<(), OptionsError> {
        match self {
            Self::Zstd { level } if !(1..=22).contains(level) => {
                Err(OptionsError::Level { level: *level })
            }
            Self::Gzip { level } | Self::Estargz(EstargzOptions { level, .. })
                if !(1..=GZIP_LEVEL_MAX).contains(level) =>
            {
                Err(OptionsError::GzipLevel { level: *level })
            }
            Self::Estargz(options) => {
                let (bytes, pack_bytes) = (options.chunk_bytes, options.pack_bytes);
                if !ESTARGZ_CHUNK_BYTES.contains(&bytes) || !bytes.is_multiple_of(BLOCK_BYTES) {
                    return Err(OptionsError::EstargzChunkBytes { bytes });
                }
                if pack_bytes > draught_estargz::PACK_BYTES_MAX {
                    return Err(OptionsError::EstargzPackBytes { bytes: pack_bytes });
                }
                Ok(())
            }
            Self::Gzip { .. } | Self::Zstd { .. } => Ok(()),
        }
    }

    /// What determines the bytes of a layer, as a text for keys.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Gzip { level } => format!("format gzip {level}\n"),
            Self::Zstd { level } => format!("format zstd {level}\n"),
            Self::Estargz(EstargzOptions {
                level,
                chunk_bytes,
                pack_bytes,
                prefetch,
            }) => {
                let prefetch = paths_key(prefetch);
                format!(
                    "format estargz {level}\nchunk bytes {chunk_bytes}\npack bytes {pack_bytes}\n\
                     prefetch {prefetch}\n"
                )
            }
        }
    }
}
