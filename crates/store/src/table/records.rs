//! The records of one file.

use std::io;
use std::ops::Range;

use super::format::{RECORD_BYTES, RECORDS_PER_CALL, RecordCodec, TableChunk, offset_of};
use crate::device::{Storage, narrow};

/// A record as it is read: the number it has in its file, and what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) number: u32,
    pub(crate) chunk: TableChunk,
}

/// A file whose header is believed.
#[derive(Debug)]
pub(crate) struct Records<S> {
    pub(super) storage: S,
    pub(super) codec: RecordCodec,
    pub(super) count: u32,
}

impl<S: Storage> Records<S> {
    /// All numbers, in parts of which each is read by one call.
    pub(super) fn parts(&self) -> impl Iterator<Item = Range<u32>> + use<S> {
        let count = self.count;
        let starts = (0..count).step_by(narrow(u64::from(RECORDS_PER_CALL)));
        starts.map(move |start| start..count.min(start.saturating_add(RECORDS_PER_CALL)))
    }

    /// Fills `bytes` with these records; false if the file ends before.
    pub(crate) fn read(&self, numbers: Range<u32>, bytes: &mut Vec<u8>) -> io::Result<bool> {
        bytes.clear();
        bytes.resize(numbers.len() * RECORD_BYTES, 0);
        match self.storage.read_at(offset_of(numbers.start), bytes) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The record `number` among `bytes` that were read from the record `first` on, if it is believed.
    pub(crate) fn decode(&self, first: u32, bytes: &[u8], number: u32) -> Option<TableChunk> {
        let start = narrow(u64::from(number.checked_sub(first)?)) * RECORD_BYTES;
        let bytes = bytes.get(start..start.checked_add(RECORD_BYTES)?)?;
        self.codec.decode(number, bytes)
    }

    /// One record, if there is one and it is believed.
    pub(super) fn one(&self, number: u32) -> io::Result<Option<TableChunk>> {
        let mut bytes = Vec::new();
        if number >= self.count || !self.read(number..number + 1, &mut bytes)? {
            return Ok(None);
        }
        Ok(self.decode(number, &bytes, number))
    }

    /// Writes records at the end.
    pub(super) fn append(&mut self, chunks: &[TableChunk]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for chunks in chunks.chunks(narrow(u64::from(RECORDS_PER_CALL))) {
            bytes.clear();
            let mut number = self.count;
            for chunk in chunks {
                self.codec.encode(number, chunk, &mut bytes);
                number += 1;
            }
            self.storage.write_at(offset_of(self.count), &bytes)?;
            self.count = number;
        }
        Ok(())
    }
}
