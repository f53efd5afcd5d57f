//! Pieces of streams: encoded each by itself, by as many threads as there are, and decoded as one.

use std::fmt;
use std::io;

use libdeflater::{CompressionLvl, Compressor};

/// What a stream is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// Members of gzip (RFC 1952), which follow each other. Level 1 to 12.
    Gzip {
        /// The level.
        level: u32,
    },
    /// Frames of zstd (RFC 8878), which follow each other. Level 1 to 22.
    Zstd {
        /// The level.
        level: i32,
    },
}

/// Encodes pieces of a stream: what it gives for each, one after the other, decodes to all of them. The same
/// piece always becomes the same bytes.
pub struct PieceEncoder {
    kind: PieceKind,
    library: Library,
}

enum Library {
    Gzip(Compressor),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl fmt::Debug for PieceEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PieceEncoder")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl PieceEncoder {
    /// An encoder.
    ///
    /// # Errors
    /// When there is no such level, or the library has no memory for it.
    pub fn new(kind: PieceKind) -> io::Result<Self> {
        let library = match kind {
            PieceKind::Gzip { level } => {
                let level = i32::try_from(level).ok();
                let level = level.and_then(|level| CompressionLvl::new(level).ok());
                let level = level.ok_or(io::ErrorKind::InvalidInput)?;
                Library::Gzip(Compressor::new(level))
            }
            PieceKind::Zstd { level } => Library::Zstd(zstd::bulk::Compressor::new(level)?),
        };
        Ok(Self { kind, library })
    }

    /// Appends what a piece becomes.
    ///
    /// # Errors
    /// When the library has no memory for it.
    pub fn encode(&mut self, piece: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.library {
            Library::Zstd(zstd) => {
                let encoded = zstd.compress(piece)?;
                out.extend_from_slice(&encoded);
            }
            Library::Gzip(gzip) => {
                let start = out.len();
                out.resize(start + gzip.gzip_compress_bound(piece.len()), 0);
                let room = out.get_mut(start..).unwrap_or_default();
                let encoded = gzip.gzip_compress(piece, room).map_err(io::Error::other)?;
                out.truncate(start + encoded);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn pieces_decode_as_one_stream() {
        let mut data = Vec::new();
        for number in 0..100_000_u32 {
            data.extend_from_slice(&(number / 7).to_le_bytes());
        }
        for kind in [PieceKind::Gzip { level: 6 }, PieceKind::Zstd { level: 3 }] {
            let mut encoder = PieceEncoder::new(kind).unwrap();
            let (mut out, mut again) = (Vec::new(), Vec::new());
            for piece in data.chunks(10_000).chain([&b""[..]]) {
                encoder.encode(piece, &mut out).unwrap();
            }
            let mut other = PieceEncoder::new(kind).unwrap();
            for piece in data.chunks(10_000).chain([&b""[..]]) {
                other.encode(piece, &mut again).unwrap();
            }
            assert_eq!(out, again, "the same pieces give the same bytes");
            assert!(out.len() < data.len());
            let mut decoded = Vec::new();
            match kind {
                PieceKind::Gzip { .. } => flate2::read::MultiGzDecoder::new(&*out)
                    .read_to_end(&mut decoded)
                    .map(drop),
                PieceKind::Zstd { .. } => zstd::stream::copy_decode(&*out, &mut decoded),
            }
            .unwrap();
            assert_eq!(decoded, data);
        }
        let kind = PieceKind::Gzip { level: 99 };
        PieceEncoder::new(kind).unwrap_err();
    }
}
