//! How far the content of an entry was given.

use crate::sparse::Map;

/// The content of the current entry.
#[derive(Debug, Default)]
pub(crate) struct Body {
    /// How far the content was given.
    pub(crate) position: u64,
    /// The size of the content, holes included.
    pub(crate) bytes: u64,
    /// How much of what is stored was not read yet.
    pub(crate) stored_left: u64,
    /// What follows up to the next block.
    pub(crate) padding: u64,
    pub(crate) map: Option<Map>,
    /// The first piece that was not given whole.
    pub(crate) piece: usize,
}

/// A stretch of content of one sort.
pub(crate) enum Run {
    Data(u64),
    Hole(u64),
    End,
}

impl Body {
    /// What comes next.
    pub(crate) fn run(&mut self) -> Run {
        let Some(map) = &self.map else {
            return match self.bytes - self.position {
                0 => Run::End,
                bytes => Run::Data(bytes),
            };
        };
        while let Some(piece) = map.pieces.get(self.piece) {
            if self.position < piece.offset {
                return Run::Hole(piece.offset - self.position);
            }
            let end = piece.offset + piece.bytes;
            if self.position < end {
                return Run::Data(end - self.position);
            }
            self.piece += 1;
        }
        match self.bytes - self.position {
            0 => Run::End,
            bytes => Run::Hole(bytes),
        }
    }
}
