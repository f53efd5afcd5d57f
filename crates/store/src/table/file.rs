//! Reading and writing a chunk table.

use std::cmp::Ordering;
use std::io;

use draught_digest::{Algorithm, Digest, Hasher};

use super::format::{
    HEADER_BYTES, Header, Kind, RECORD_BYTES, RECORDS_PER_CALL, RecordCodec, TableChunk,
    TableFault, offset_of,
};
use super::records::{Record, Records};
use crate::device::{BLOCK_BYTES, DEVICE_BYTES_MAX, Storage, narrow, widen};
use crate::error::DeviceError;
use crate::key::DeviceKey;

/// Whether a device can be made of these chunks; its size.
pub(crate) fn check_chunks(chunks: &[TableChunk]) -> Result<u64, DeviceError> {
    let mut end = 0;
    for (index, chunk) in chunks.iter().enumerate() {
        let reason = if chunk.bytes == 0 {
            "it has no bytes"
        } else if !chunk.place.is_multiple_of(BLOCK_BYTES) {
            "it does not begin at a block"
        } else if chunk.place < end {
            "it begins before the end of the one before it"
        } else if chunk.end() > DEVICE_BYTES_MAX {
            "it ends past the largest device"
        } else {
            end = chunk.end();
            continue;
        };
        return Err(DeviceError::Chunk {
            index: widen(index),
            place: chunk.place,
            reason,
        });
    }
    Ok(end)
}

/// Whether two digests can both be those of the same bytes.
pub(crate) fn digests_agree(one: &Digest, other: &Digest) -> bool {
    one.algorithm() != other.algorithm() || one == other
}

/// A table that is open and whose header is believed.
#[derive(Debug)]
pub(crate) struct TableFile<S> {
    header: Header,
    records: Records<S>,
}

impl<S: Storage> TableFile<S> {
    /// Writes a table into an empty file. `chunks` were [checked](check_chunks) and end at `device_bytes`.
    pub(crate) fn write(
        storage: &S,
        key: &DeviceKey,
        device_bytes: u64,
        chunks: &[TableChunk],
    ) -> io::Result<()> {
        let count = u32::try_from(chunks.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut header = Header {
            key: *key,
            device_bytes,
            chunks: count,
            bound: [0; 32],
        };
        let codec = RecordCodec::new(&header, Kind::Table);
        let mut content = Hasher::new(Algorithm::Blake3);
        let mut bytes = Vec::new();
        let mut number = 0;
        for batch in chunks.chunks(narrow(u64::from(RECORDS_PER_CALL))) {
            bytes.clear();
            let offset = offset_of(number);
            for chunk in batch {
                codec.encode(number, chunk, &mut bytes);
                number += 1;
            }
            content.update(&bytes);
            storage.write_at(offset, &bytes)?;
        }
        header.bound = *content.finish().as_bytes();
        storage.write_at(0, &header.encode(Kind::Table))
    }

    /// Reads the header of what must be the table of `key`.
    pub(crate) fn open(storage: S, key: &DeviceKey) -> io::Result<Result<Self, TableFault>> {
        let mut bytes = [0; HEADER_BYTES];
        match storage.read_at(0, &mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Err(TableFault::Length));
            }
            Err(error) => return Err(error),
        }
        let header = match Header::decode(&bytes, Kind::Table, key) {
            Ok(header) => header,
            Err(fault) => return Ok(Err(fault)),
        };
        if storage.len()? != offset_of(header.chunks) {
            return Ok(Err(TableFault::Length));
        }
        let records = Records {
            codec: RecordCodec::new(&header, Kind::Table),
            storage,
            count: header.chunks,
        };
        Ok(Ok(Self { header, records }))
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn records(&self) -> &Records<S> {
        &self.records
    }

    /// Reads all records, some at a time. What `each` was given counts only if this returns no fault:
    /// the check over all of them comes last.
    pub(crate) fn for_each(
        &self,
        mut each: impl FnMut(&[Record]),
    ) -> io::Result<Result<(), TableFault>> {
        let mut content = Hasher::new(Algorithm::Blake3);
        let mut end = 0;
        let mut bytes = Vec::new();
        let mut records = Vec::new();
        for numbers in self.records.parts() {
            if !self.records.read(numbers.clone(), &mut bytes)? {
                return Ok(Err(TableFault::Length));
            }
            content.update(&bytes);
            records.clear();
            for (number, record) in numbers.zip(bytes.chunks_exact(RECORD_BYTES)) {
                let chunk = self.records.codec.decode_unchecked(record);
                let Some(chunk) = chunk.filter(|chunk| chunk.place >= end) else {
                    return Ok(Err(TableFault::Damaged));
                };
                end = chunk.end();
                records.push(Record { number, chunk });
            }
            each(&records);
        }
        if *content.finish().as_bytes() != self.header.bound {
            return Ok(Err(TableFault::Damaged));
        }
        Ok(Ok(()))
    }

    /// All chunks.
    pub(crate) fn chunks(&self) -> io::Result<Result<Vec<TableChunk>, TableFault>> {
        let mut chunks = Vec::new();
        let read = self.for_each(|records| chunks.extend(records.iter().map(|it| it.chunk)))?;
        Ok(read.map(|()| chunks))
    }

    /// The chunk at this place, if the table has one.
    pub(crate) fn at(&self, place: u64) -> io::Result<Option<TableChunk>> {
        let (mut low, mut high) = (0, self.header.chunks);
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(chunk) = self.records.one(middle)? else {
                return Ok(None);
            };
            match chunk.place.cmp(&place) {
                Ordering::Equal => return Ok(Some(chunk)),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }
}
