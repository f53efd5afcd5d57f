//! The table of contents: the last thing in a blob, and the first to be read.

use draught_codec::{DecodeError, Decoder, Encoder};
use draught_digest::{Algorithm, DIGEST_BYTES, Digest};
use draught_tree::{BlobOffset, Compression};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::raw::RawTocEntry;
use super::tar_header::{self, TAR_HEADER_BYTES};

/// How much of a blob's end surely holds its table of contents, in bytes (all of a blob that is shorter).
pub const TOC_TAIL_BYTES: u64 = 4096;

pub(crate) const BLOB_DATA: &str = "image.blob";
pub(crate) const BOOTSTRAP: &str = "image.boot";
pub(crate) const CHUNK_INFO: &str = "blob.meta";
pub(crate) const CHUNK_INFO_HEADER: &str = "blob.meta.header";
pub(crate) const CHUNK_DIGESTS: &str = "blob.digest";
pub(crate) const TOC: &str = "rafs.blob.toc";

const FLAG_NONE: u32 = 1;
const FLAG_ZSTD: u32 = 2;
const FLAG_LZ4: u32 = 4;

/// What a table of contents may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TocLimits {
    /// Decoded size of an entry in bytes. The largest is the digest list of 2^24 chunks; bootstraps of
    /// a single layer stay far below.
    pub entry_bytes_max: u64,
}

impl Default for TocLimits {
    fn default() -> Self {
        Self {
            entry_bytes_max: 512 << 20,
        }
    }
}

/// Why a table of contents, or one of its entries, can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TocError {
    /// The blob doesn't end in one.
    #[error("the blob has no table of contents: it does not end in a tar header named {TOC:?}")]
    Missing,
    /// Its size is not what a table can have.
    #[error("the blob's table of contents is {bytes} bytes long, which can't be")]
    Size {
        /// The size in bytes that its header states.
        bytes: u64,
    },
    /// An entry has a name that is no text.
    #[error("entry {index} of the table of contents has no readable name")]
    Name {
        /// Which, from 0.
        index: usize,
    },
    /// An entry is compressed in a way that we don't know.
    #[error("entry {name:?} of the table of contents has unknown compression flags {flags:#x}")]
    Compression {
        /// The entry's name.
        name: String,
        /// Its flags.
        flags: u32,
    },
    /// An entry isn't inside of the blob, or contradicts itself.
    #[error(
        "entry {name:?} of the table of contents, {stored_bytes} bytes at {offset}, can't be: {problem}"
    )]
    Range {
        /// The entry's name.
        name: String,
        /// Where it is said to begin.
        offset: BlobOffset,
        /// Its stored size.
        stored_bytes: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// There is no such entry.
    #[error("the table of contents has no entry {name:?}")]
    NoEntry {
        /// The name.
        name: &'static str,
    },
    /// An entry can't be decoded.
    #[error("failed to decode entry {name:?} of the table of contents")]
    Decode {
        /// The entry's name.
        name: String,
        /// Why.
        source: DecodeError,
    },
    /// An entry has other content than the table says.
    #[error("entry {name:?} of the table of contents has digest {got}, the table says {expected}")]
    Digest {
        /// The entry's name.
        name: String,
        /// What the table says.
        expected: Digest,
        /// What it is.
        got: Digest,
    },
}

/// One part of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TocEntry {
    /// Its name.
    pub name: String,
    /// How it is stored.
    pub compression: Compression,
    /// SHA-256 of its decoded bytes. (For the chunk data, nydus writes something else here, and so do we.)
    pub digest: Digest,
    /// Where it begins.
    pub offset: BlobOffset,
    /// Its stored size in bytes.
    pub stored_bytes: u64,
    /// Its decoded size in bytes.
    pub decoded_bytes: u64,
}

impl TocEntry {
    pub(crate) fn to_raw(&self) -> RawTocEntry {
        let mut raw = RawTocEntry::new_zeroed();
        raw.flags = match self.compression {
            Compression::Zstd => FLAG_ZSTD,
            Compression::Lz4Block => FLAG_LZ4,
            Compression::None | Compression::Gzip => FLAG_NONE,
        }
        .into();
        for (to, from) in raw.name.iter_mut().zip(self.name.as_bytes()) {
            *to = *from;
        }
        raw.digest = *self.digest.as_bytes();
        raw.offset = self.offset.0.into();
        raw.stored_bytes = self.stored_bytes.into();
        raw.decoded_bytes = self.decoded_bytes.into();
        raw
    }

    fn from_raw(
        index: usize,
        raw: &RawTocEntry,
        limits: &TocLimits,
        end: u64,
    ) -> Result<Self, TocError> {
        let name = raw.name.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = str::from_utf8(name)
            .ok()
            .filter(|name| !name.is_empty())
            .ok_or(TocError::Name { index })?
            .to_owned();
        let compression = match raw.flags.get() {
            FLAG_NONE => Compression::None,
            FLAG_ZSTD => Compression::Zstd,
            FLAG_LZ4 => Compression::Lz4Block,
            flags => return Err(TocError::Compression { name, flags }),
        };
        let entry = Self {
            name,
            compression,
            digest: Digest::new(Algorithm::Sha256, raw.digest),
            offset: BlobOffset(raw.offset.get()),
            stored_bytes: raw.stored_bytes.get(),
            decoded_bytes: raw.decoded_bytes.get(),
        };
        let problem = if entry
            .offset
            .checked_add(entry.stored_bytes)
            .is_none_or(|at| at.0 > end)
        {
            "it ends outside of the blob"
        } else if entry.name == BLOB_DATA {
            return Ok(entry);
        } else if entry.decoded_bytes > limits.entry_bytes_max {
            "it is larger than the limit"
        } else if compression == Compression::None && entry.stored_bytes != entry.decoded_bytes {
            "it isn't compressed, but has two sizes"
        } else {
            return Ok(entry);
        };
        Err(TocError::Range {
            name: entry.name,
            offset: entry.offset,
            stored_bytes: entry.stored_bytes,
            problem,
        })
    }

    /// Decodes and verifies the entry from its stored bytes. Not for the chunk data.
    ///
    /// # Errors
    /// [`TocError::Decode`], [`TocError::Digest`].
    pub fn decode(&self, stored: &[u8]) -> Result<Vec<u8>, TocError> {
        let mut out = Vec::new();
        let bytes = u32::try_from(self.decoded_bytes).unwrap_or(u32::MAX);
        Decoder::new()
            .decode(self.compression, stored, bytes, &mut out)
            .map_err(|source| TocError::Decode {
                name: self.name.clone(),
                source,
            })?;
        let got = Digest::sha256(&out);
        if got != self.digest {
            return Err(TocError::Digest {
                name: self.name.clone(),
                expected: self.digest,
                got,
            });
        }
        Ok(out)
    }
}

/// A blob's table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toc {
    /// The parts, in the order of the table.
    pub entries: Vec<TocEntry>,
    /// Size of the table and its tar header, in bytes.
    pub bytes: u32,
    /// SHA-256 of both.
    pub sha256: [u8; DIGEST_BYTES],
}

impl Toc {
    /// Reads the table from the last [`TOC_TAIL_BYTES`] of a blob of `blob_bytes`.
    ///
    /// # Errors
    /// See [`TocError`].
    pub fn decode(tail: &[u8], blob_bytes: u64, limits: &TocLimits) -> Result<Self, TocError> {
        let (before, header) = tail
            .split_last_chunk::<TAR_HEADER_BYTES>()
            .ok_or(TocError::Missing)?;
        let Some((TOC, bytes)) = tar_header::decode(header) else {
            return Err(TocError::Missing);
        };
        let table = usize::try_from(bytes)
            .ok()
            .and_then(|bytes| before.len().checked_sub(bytes))
            .and_then(|at| before.get(at..))
            .ok_or(TocError::Size { bytes })?;
        let raws = <[RawTocEntry]>::ref_from_bytes(table).map_err(|_| TocError::Size { bytes })?;
        let whole = (bytes).saturating_add(TAR_HEADER_BYTES as u64);
        let end = blob_bytes.saturating_sub(whole);
        let entries = raws
            .iter()
            .enumerate()
            .map(|(index, raw)| TocEntry::from_raw(index, raw, limits, end))
            .collect::<Result<Vec<_>, _>>()?;
        let mut hasher = draught_digest::Hasher::new(Algorithm::Sha256);
        hasher.update(table);
        hasher.update(header);
        Ok(Self {
            entries,
            bytes: u32::try_from(whole).map_err(|_| TocError::Size { bytes })?,
            sha256: *hasher.finish().as_bytes(),
        })
    }

    fn entry(&self, name: &'static str) -> Result<&TocEntry, TocError> {
        self.entries
            .iter()
            .find(|entry| entry.name == name)
            .ok_or(TocError::NoEntry { name })
    }

    /// The chunk data.
    ///
    /// # Errors
    /// [`TocError::NoEntry`].
    pub fn data(&self) -> Result<&TocEntry, TocError> {
        self.entry(BLOB_DATA)
    }

    /// The bootstrap of the blob's layer.
    ///
    /// # Errors
    /// [`TocError::NoEntry`].
    pub fn bootstrap(&self) -> Result<&TocEntry, TocError> {
        self.entry(BOOTSTRAP)
    }

    /// The chunk-info table.
    ///
    /// # Errors
    /// [`TocError::NoEntry`].
    pub fn chunk_info(&self) -> Result<&TocEntry, TocError> {
        self.entry(CHUNK_INFO)
    }

    /// The chunk-info header.
    ///
    /// # Errors
    /// [`TocError::NoEntry`].
    pub fn chunk_info_header(&self) -> Result<&TocEntry, TocError> {
        self.entry(CHUNK_INFO_HEADER)
    }

    /// The chunks' digests.
    ///
    /// # Errors
    /// [`TocError::NoEntry`].
    pub fn chunk_digests(&self) -> Result<&TocEntry, TocError> {
        self.entry(CHUNK_DIGESTS)
    }
}

/// Encodes a part; gives how it is stored as well.
pub(crate) fn encode_part(
    compression: Compression,
    data: &[u8],
) -> Result<(Vec<u8>, Compression), draught_codec::EncodeError> {
    let mut stored = Vec::new();
    let used =
        Encoder::new(compression, draught_codec::LEVEL_DEFAULT)?.encode(data, &mut stored)?;
    Ok((stored, used))
}

pub(crate) fn encode_table(entries: &[TocEntry]) -> Vec<u8> {
    let mut table = Vec::new();
    for entry in entries {
        table.extend_from_slice(entry.to_raw().as_bytes());
    }
    table
}
