//! Extents: short ranges, decoded and encoded at once, in memory.

use std::fmt;
use std::io::{self, Read};

use draught_tree::Compression;

/// The zstd level when nobody asks for another: the reference program's default, and what the peers use.
pub const LEVEL_DEFAULT: i32 = 3;

/// Why an extent can't be decoded. All of these say that the stored bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are not what this compression writes.
    #[error("failed to decode {stored_bytes} bytes of {compression:?}: they are corrupt")]
    Corrupt {
        /// The compression.
        compression: Compression,
        /// How many bytes there were.
        stored_bytes: usize,
        /// What the decoder said.
        source: io::Error,
    },
    /// They decode to another number of bytes than the index says.
    #[error(
        "{compression:?} bytes decode to {} bytes, the index says {expected_bytes}",
        got_bytes.map_or_else(|| "more".to_owned(), |got| got.to_string())
    )]
    Length {
        /// The compression.
        compression: Compression,
        /// What the index says.
        expected_bytes: u32,
        /// What they decode to; `None` when it is more than the index says.
        got_bytes: Option<usize>,
    },
}

/// Decodes extents; keeps what it can use again.
#[derive(Default)]
pub struct Decoder {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder for every compression; contexts are made when they are first needed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces `out` by what `stored` decodes to, which must be exactly `decoded_bytes` long: never
    /// more than that is written or allocated. After an error `out` is empty.
    ///
    /// Gzip members may hold more, and `stored` may end once `decoded_bytes` are out: formats with gzip
    /// say where a piece begins and how long it is, and not what else its member holds. Members' own
    /// checksums are looked at only where everything is decoded; digests are what bytes are trusted for.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(
        &mut self,
        compression: Compression,
        stored: &[u8],
        decoded_bytes: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        out.clear();
        let expected = usize::try_from(decoded_bytes).unwrap_or(usize::MAX);
        let outcome = match compression {
            Compression::None => {
                if stored.len() == expected {
                    out.extend_from_slice(stored);
                }
                Ok(stored.len())
            }
            Compression::Zstd => self.zstd(stored, expected, out),
            Compression::Lz4Block => lz4(stored, expected, out),
            Compression::Gzip => gzip(stored, expected, out),
        };
        let got = outcome.map_err(|source| DecodeError::Corrupt {
            compression,
            stored_bytes: stored.len(),
            source,
        });
        match got {
            Ok(got) if got == expected => Ok(()),
            Ok(got) => {
                out.clear();
                Err(DecodeError::Length {
                    compression,
                    expected_bytes: decoded_bytes,
                    got_bytes: (compression == Compression::None || got < expected).then_some(got),
                })
            }
            Err(error) => {
                out.clear();
                Err(error)
            }
        }
    }

    fn zstd(&mut self, stored: &[u8], expected: usize, out: &mut Vec<u8>) -> io::Result<usize> {
        let decoder = match &mut self.zstd {
            Some(decoder) => decoder,
            none => none.insert(zstd::bulk::Decompressor::new()?),
        };
        out.reserve_exact(expected);
        decoder.decompress_to_buffer(stored, out)
    }
}

fn lz4(stored: &[u8], expected: usize, out: &mut Vec<u8>) -> io::Result<usize> {
    out.resize(expected, 0);
    lz4_flex::block::decompress_into(stored, out).map_err(io::Error::other)
}

fn gzip(stored: &[u8], expected: usize, out: &mut Vec<u8>) -> io::Result<usize> {
    out.reserve_exact(expected);
    // What else a member holds is never decoded.
    flate2::bufread::MultiGzDecoder::new(stored)
        .take(expected as u64)
        .read_to_end(out)
}

/// Why an extent can't be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// No format that we write has extents of this compression.
    #[error("failed to encode: {compression:?} is not written")]
    Unsupported {
        /// The compression.
        compression: Compression,
    },
    /// The compressor failed: it is out of memory, or the level does not exist.
    #[error("failed to encode {decoded_bytes} bytes as {compression:?}")]
    Failed {
        /// The compression.
        compression: Compression,
        /// How many bytes were to be encoded.
        decoded_bytes: usize,
        /// What the compressor said.
        source: io::Error,
    },
}

/// Encodes extents, all in the same way; keeps its context. The same bytes always encode to the same bytes.
pub struct Encoder {
    compression: Compression,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    /// What an extent encodes to, before it is known to be worth it.
    scratch: Vec<u8>,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder")
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder. `level` counts for zstd alone.
    ///
    /// # Errors
    /// [`EncodeError::Unsupported`] for gzip, [`EncodeError::Failed`] if there is no such level.
    pub fn new(compression: Compression, level: i32) -> Result<Self, EncodeError> {
        let failed = |source| EncodeError::Failed {
            compression,
            decoded_bytes: 0,
            source,
        };
        let zstd = match compression {
            Compression::Zstd => Some(zstd::bulk::Compressor::new(level).map_err(failed)?),
            Compression::None | Compression::Lz4Block => None,
            Compression::Gzip => return Err(EncodeError::Unsupported { compression }),
        };
        Ok(Self {
            compression,
            zstd,
            scratch: Vec::new(),
        })
    }

    /// How it encodes.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Appends `data` to `out`: compressed, if that is shorter, else as it is. Says which of the two.
    ///
    /// # Errors
    /// [`EncodeError::Failed`]; `out` is as it was.
    pub fn encode(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<Compression, EncodeError> {
        let compressed = self.compress(data).map_err(|source| EncodeError::Failed {
            compression: self.compression,
            decoded_bytes: data.len(),
            source,
        })?;
        match compressed.and_then(|bytes| self.scratch.get(..bytes)) {
            Some(compressed) if compressed.len() < data.len() => {
                out.extend_from_slice(compressed);
                Ok(self.compression)
            }
            _ => {
                out.extend_from_slice(data);
                Ok(Compression::None)
            }
        }
    }

    /// Compresses into the scratch buffer; `None` when there is nothing to do.
    fn compress(&mut self, data: &[u8]) -> io::Result<Option<usize>> {
        let bytes = match (&mut self.zstd, self.compression) {
            (Some(zstd), _) => {
                self.scratch.clear();
                self.scratch
                    .reserve(zstd::zstd_safe::compress_bound(data.len()));
                zstd.compress_to_buffer(data, &mut self.scratch)?
            }
            (None, Compression::Lz4Block) => {
                let bound = lz4_flex::block::get_maximum_output_size(data.len());
                if self.scratch.len() < bound {
                    self.scratch.resize(bound, 0);
                }
                lz4_flex::block::compress_into(data, &mut self.scratch).map_err(io::Error::other)?
            }
            (None, _) => return Ok(None),
        };
        Ok(Some(bytes))
    }
}
