//! Second digests of chunks: a file beside the table that only grows.

use std::io;

use super::file::TableFile;
use super::format::{
    HEADER_BYTES, Header, Kind, RECORD_BYTES, RecordCodec, TableChunk, TableFault, offset_of,
};
use super::records::{Record, Records};
use crate::device::{Storage, narrow, widen};

/// The records that twins have at most for each chunk of their table. One is all there is to learn as
/// long as there are two algorithms; another may be damaged by a power cut and is written again.
const RECORDS_PER_CHUNK_MAX: u32 = 2;

/// A file of twins that is open.
#[derive(Debug)]
pub(crate) struct Twins<S> {
    header: Header,
    records: Records<S>,
}

impl<S: Storage> Twins<S> {
    /// Reads what must be the twins of `table`. A file that is not is one that has no records, and is
    /// begun anew by the first that is appended: nothing but sharing is lost by that.
    pub(crate) fn open<T: Storage>(storage: S, table: &TableFile<T>) -> io::Result<Self> {
        let header = table.header().of_twins();
        let count = match count(&storage, &header)? {
            Ok(count) => count,
            Err(fault) => {
                tracing::warn!(device = %header.key, %fault, "learned digests are not believed");
                0
            }
        };
        let codec = RecordCodec::new(&header, Kind::Twins);
        let records = Records {
            storage,
            codec,
            count,
        };
        Ok(Self { header, records })
    }

    pub(crate) fn records(&self) -> &Records<S> {
        &self.records
    }

    /// Reads all records, some at a time: those that are believed.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&[Record])) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut records = Vec::new();
        for numbers in self.records.parts() {
            if !self.records.read(numbers.clone(), &mut bytes)? {
                break;
            }
            let first = numbers.start;
            let decode = |number| {
                let chunk = self.records.decode(first, &bytes, number)?;
                Some(Record { number, chunk })
            };
            records.clear();
            records.extend(numbers.filter_map(decode));
            each(&records);
        }
        Ok(())
    }

    /// Appends as many of these as there is room for; the number of the first. Not durable: a record that
    /// a power cut damages is one that is not believed.
    pub(crate) fn append(&mut self, chunks: &[TableChunk]) -> io::Result<u32> {
        let first = self.records.count;
        let room = records_max(&self.header).saturating_sub(first);
        let room = narrow(u64::from(room)).min(chunks.len());
        let (chunks, _) = chunks.split_at_checked(room).unwrap_or_default();
        if chunks.is_empty() {
            return Ok(first);
        }
        if first == 0 {
            self.records.storage.set_len(0)?;
            let header = self.header.encode(Kind::Twins);
            self.records.storage.write_at(0, &header)?;
        }
        self.records.append(chunks)?;
        Ok(first)
    }
}

/// How many records the twins with this header have.
fn count<S: Storage>(storage: &S, header: &Header) -> io::Result<Result<u32, TableFault>> {
    let len = storage.len()?;
    if len == 0 {
        return Ok(Ok(0));
    }
    let Some(records_bytes) = len.checked_sub(offset_of(0)) else {
        return Ok(Err(TableFault::Length));
    };
    let mut bytes = [0; HEADER_BYTES];
    storage.read_at(0, &mut bytes)?;
    if bytes != header.encode(Kind::Twins) {
        return Ok(Err(TableFault::Damaged));
    }
    // What is left of the last, if it was cut off, is overwritten by the next.
    let count = u32::try_from(records_bytes / widen(RECORD_BYTES)).unwrap_or(u32::MAX);
    Ok(Ok(count.min(records_max(header))))
}

fn records_max(header: &Header) -> u32 {
    header.chunks.saturating_mul(RECORDS_PER_CHUNK_MAX)
}
