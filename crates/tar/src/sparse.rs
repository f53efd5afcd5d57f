//! Sparse files: where their data lies.

use std::io::Read;

use crate::BLOCK_BYTES;
use crate::error::{Limits, TarError};
use crate::header::{RawHeader, RawPiece, RawPieces, bad_number};
use crate::input::Input;
use crate::number;
use crate::pax::{SparseRecords, check};

/// A stretch of data; what lies between two is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// The pieces in order; they were checked against the file's size.
#[derive(Debug)]
pub(crate) struct Map {
    pub(crate) pieces: Vec<Piece>,
}

/// Which of GNU tar's versions in pax records.
pub(crate) enum Version {
    /// 0.0 and 0.1: the map is in the records.
    InRecords,
    /// 1.0: the map stands before the data.
    InData,
}

pub(crate) fn bad(offset: u64, problem: &'static str) -> TarError {
    TarError::Sparse { offset, problem }
}

impl Map {
    /// A map that fits the size of the file and of what is stored of it.
    pub(crate) fn new(
        pieces: Vec<Piece>,
        bytes: u64,
        stored_bytes: u64,
        offset: u64,
    ) -> Result<Self, TarError> {
        let mut end = 0_u64;
        let mut sum = 0_u64;
        for piece in &pieces {
            if piece.offset < end {
                return Err(bad(offset, "pieces overlap or are not in order"));
            }
            let piece_end = piece.offset.checked_add(piece.bytes);
            end = piece_end
                .filter(|end| *end <= bytes)
                .ok_or_else(|| bad(offset, "a piece lies beyond the file's end"))?;
            // Pieces don't overlap, so the sum is below `bytes`.
            sum += piece.bytes;
        }
        if sum != stored_bytes {
            return Err(bad(
                offset,
                "the pieces' sizes don't add up to what is stored",
            ));
        }
        Ok(Self { pieces })
    }
}

impl SparseRecords {
    /// Which version, if it is a sparse file at all.
    pub(crate) fn version(&self, offset: u64) -> Result<Option<Version>, TarError> {
        match (self.major, self.minor) {
            (Some(1), Some(0)) => Ok(Some(Version::InData)),
            (Some(0), Some(0 | 1)) => Ok(Some(Version::InRecords)),
            (None, None) => Ok(self.has_map.then_some(Version::InRecords)),
            _ => Err(bad(offset, "a version other than 0.0, 0.1 and 1.0")),
        }
    }

    /// The size of the file with its holes.
    pub(crate) fn real_bytes(&self, offset: u64) -> Result<u64, TarError> {
        let size = self.size.or(self.real_size);
        size.ok_or_else(|| bad(offset, "its size with holes is not said"))
    }

    /// The pieces that the records name.
    pub(crate) fn pieces(&self, offset: u64, limits: &Limits) -> Result<Vec<Piece>, TarError> {
        if !self.map.len().is_multiple_of(2) {
            return Err(bad(offset, "the map ends in the middle of a piece"));
        }
        let pieces = self.map.chunks_exact(2).filter_map(|pair| match pair {
            [offset, bytes] => Some(Piece {
                offset: *offset,
                bytes: *bytes,
            }),
            _ => None,
        });
        let pieces: Vec<Piece> = pieces.collect();
        check(
            offset,
            "the number of pieces",
            pieces.len(),
            limits.sparse_pieces_max,
        )?;
        if self
            .piece_count
            .is_some_and(|count| count != pieces.len() as u64)
        {
            return Err(bad(offset, "the map has not as many pieces as it says"));
        }
        Ok(pieces)
    }
}

/// Appends the pieces of an old header or of a block that continues it.
fn push_old(
    pieces: &mut Vec<Piece>,
    raw: &[RawPiece],
    offset: u64,
    limits: &Limits,
) -> Result<(), TarError> {
    for raw in raw {
        let parse = |field: &[u8], name| {
            let number = number::parse(field).and_then(|number| u64::try_from(number).ok());
            number.ok_or_else(|| bad_number(offset, name, field))
        };
        let piece = Piece {
            offset: parse(&raw.offset, "a piece's offset")?,
            bytes: parse(&raw.bytes, "a piece's size")?,
        };
        // An empty piece at the very start is what unused slots look like.
        if piece.offset == 0 && piece.bytes == 0 {
            break;
        }
        check(
            offset,
            "the number of pieces",
            pieces.len() + 1,
            limits.sparse_pieces_max,
        )?;
        pieces.push(piece);
    }
    Ok(())
}

/// The pieces of an old sparse file, in its header and the blocks that follow it.
pub(crate) fn read_old<R: Read>(
    input: &mut Input<R>,
    header: &RawHeader,
    offset: u64,
    limits: &Limits,
) -> Result<(Vec<Piece>, u64), TarError> {
    let gnu = header.gnu();
    let real_bytes = number::parse(&gnu.real_bytes).and_then(|number| u64::try_from(number).ok());
    let real_bytes = real_bytes.ok_or_else(|| bad_number(offset, "realsize", &gnu.real_bytes))?;
    let mut pieces = Vec::new();
    push_old(&mut pieces, &gnu.pieces, offset, limits)?;
    let mut extended = gnu.extended != 0;
    let mut blocks = 0;
    while extended {
        // Blocks may be empty: count them too, so that they end.
        blocks += 1;
        check(
            offset,
            "the number of map blocks",
            blocks,
            limits.sparse_pieces_max,
        )?;
        let block = input.block()?;
        let block = block.ok_or_else(|| input.truncated("a sparse file's map"))?;
        let more: RawPieces = zerocopy::transmute!(block);
        push_old(&mut pieces, &more.pieces, offset, limits)?;
        extended = more.extended != 0;
    }
    Ok((pieces, real_bytes))
}

/// The map of version 1.0, before the data: a count, then offset and size of every piece, each a
/// decimal number on a line of its own, padded to a block. Takes it off `stored_bytes`.
pub(crate) fn read_map<R: Read>(
    input: &mut Input<R>,
    stored_bytes: &mut u64,
    offset: u64,
    limits: &Limits,
) -> Result<Vec<Piece>, TarError> {
    let mut numbers: Vec<u64> = Vec::new();
    let mut count = None;
    let mut digits: Vec<u8> = Vec::new();
    loop {
        *stored_bytes = stored_bytes
            .checked_sub(BLOCK_BYTES as u64)
            .ok_or_else(|| bad(offset, "its map is longer than what is stored"))?;
        let block = input.block()?;
        let block = block.ok_or_else(|| input.truncated("a sparse file's map"))?;
        for byte in block {
            if byte != b'\n' {
                digits.push(byte);
                // 20 digits hold any number.
                if digits.len() > 20 {
                    return Err(bad(offset, "its map has a line that is no number"));
                }
                continue;
            }
            let number = number::parse_decimal(&digits)
                .ok_or_else(|| bad(offset, "its map has a line that is no number"))?;
            digits.clear();
            match count {
                None => {
                    let pieces = usize::try_from(number).unwrap_or(usize::MAX);
                    let limit = limits.sparse_pieces_max;
                    check(offset, "the number of pieces", pieces, limit)?;
                    count = Some(pieces);
                }
                Some(_) => numbers.push(number),
            }
            if count.is_some_and(|count| numbers.len() == 2 * count) {
                let map = SparseRecords {
                    map: numbers,
                    ..SparseRecords::default()
                };
                return map.pieces(offset, limits);
            }
        }
    }
}
