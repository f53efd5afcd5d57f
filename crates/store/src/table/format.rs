//! Chunk tables, format 1: a header of 128 bytes, then a record of 64 bytes for each chunk, by place.
//!
//! The header holds a BLAKE3 of all records, so that a table is believed whole or not at all. Each
//! record has a check of its own too, over the device, its number and its content: a look-up reads one
//! record and not the file. A file of twins has the same records and grows at its end.

use draught_digest::{Algorithm, Digest};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::device::{BLOCK_BYTES, widen};
use crate::key::DeviceKey;

/// What belongs at a place of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableChunk {
    /// Where it begins on the device, in bytes: a multiple of [`BLOCK_BYTES`](crate::BLOCK_BYTES).
    pub place: u64,
    /// Its bytes, at least one. What remains of its last block is zeros.
    pub bytes: u32,
    /// The digest of its bytes.
    pub digest: Digest,
}

impl TableChunk {
    /// One past its last block, in bytes.
    pub(crate) fn end(&self) -> u64 {
        self.place
            .saturating_add(u64::from(self.bytes))
            .checked_next_multiple_of(BLOCK_BYTES)
            .unwrap_or(u64::MAX)
    }
}

/// The records read or written by one call: 64 KiB, so that no buffer grows with the table.
pub(super) const RECORDS_PER_CALL: u32 = 1024;

pub(super) const HEADER_BYTES: usize = 128;
pub(super) const RECORD_BYTES: usize = 64;
const SALT_BYTES: usize = 16;

const VERSION: u32 = 1;

/// Which of the files with records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Table,
    Twins,
}

impl Kind {
    fn magic(self) -> [u8; 8] {
        match self {
            Self::Table => *b"\x89DRchk\r\n",
            Self::Twins => *b"\x89DRtwn\r\n",
        }
    }
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    version: U32,
    record_bytes: U32,

    device_bytes: U64,
    chunks: U64,

    key: [u8; 32],

    /// Of a table the BLAKE3 of all records, of twins the check of the table that they belong to.
    bound: [u8; 32],

    /// BLAKE3 of all that is above.
    check: [u8; 32],
}
const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawRecord {
    digest: [u8; 32],
    block: U32,
    bytes: U32,
    algorithm: U32,
    check: [u8; 20],
}
const _: () = assert!(size_of::<RawRecord>() == RECORD_BYTES);

/// What the check of a record is computed over.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct RawMessage {
    salt: [u8; SALT_BYTES],
    number: U32,
    digest: [u8; 32],
    block: U32,
    bytes: U32,
    algorithm: U32,
}
// One block of BLAKE3: a check costs a tenth of a microsecond.
const _: () = assert!(size_of::<RawMessage>() == 64);

const SHA256: u32 = 1;
const BLAKE3: u32 = 2;

/// Why a chunk table is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableFault {
    /// It was cut off, or something was added to it.
    #[error("it has another length than its header says")]
    Length,
    /// It is another file, or of another version.
    #[error("it is not a chunk table of format 1")]
    Magic,
    /// What it says of itself has another digest.
    #[error("it is damaged")]
    Damaged,
    /// It is the table of another device.
    #[error("it belongs to another device")]
    Foreign,
}

/// What a table says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) key: DeviceKey,
    pub(crate) device_bytes: u64,
    pub(crate) chunks: u32,
    /// See [`RawHeader::bound`].
    pub(super) bound: [u8; 32],
}

impl Header {
    fn raw(&self, kind: Kind) -> RawHeader {
        let mut raw = RawHeader {
            magic: kind.magic(),
            version: U32::new(VERSION),
            record_bytes: U32::new(64),
            device_bytes: U64::new(self.device_bytes),
            chunks: U64::new(u64::from(self.chunks)),
            key: self.key.0,
            bound: self.bound,
            check: [0; 32],
        };
        raw.check = header_check(&raw);
        raw
    }

    pub(super) fn encode(&self, kind: Kind) -> [u8; HEADER_BYTES] {
        zerocopy::transmute!(self.raw(kind))
    }

    /// Reads a header that must speak of `key`.
    pub(super) fn decode(
        bytes: &[u8; HEADER_BYTES],
        kind: Kind,
        key: &DeviceKey,
    ) -> Result<Self, TableFault> {
        let raw: &RawHeader = zerocopy::transmute_ref!(bytes);
        if raw.magic != kind.magic() || raw.version != VERSION || raw.record_bytes != 64 {
            return Err(TableFault::Magic);
        }
        if raw.check != header_check(raw) {
            return Err(TableFault::Damaged);
        }
        if raw.key != key.0 {
            return Err(TableFault::Foreign);
        }
        let chunks = u32::try_from(raw.chunks.get()).map_err(|_| TableFault::Damaged)?;
        Ok(Self {
            key: *key,
            device_bytes: raw.device_bytes.get(),
            chunks,
            bound: raw.bound,
        })
    }

    /// What the twins of this table have for a header.
    pub(super) fn of_twins(&self) -> Self {
        Self {
            bound: self.raw(Kind::Table).check,
            ..*self
        }
    }
}

fn header_check(header: &RawHeader) -> [u8; 32] {
    let (above, _) = header.as_bytes().split_at(HEADER_BYTES - 32);
    *Digest::blake3(above).as_bytes()
}

/// Where a record is in its file.
pub(super) fn offset_of(number: u32) -> u64 {
    widen(HEADER_BYTES) + u64::from(number) * widen(RECORD_BYTES)
}

/// Writes and reads the records of one file.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordCodec {
    device_bytes: u64,
    /// What makes the check of a record wrong in any other file.
    salt: [u8; SALT_BYTES],
}

impl RecordCodec {
    /// For a table, before its records are known; for twins, when their table is.
    pub(super) fn new(header: &Header, kind: Kind) -> Self {
        let mut header = *header;
        if kind == Kind::Table {
            header.bound = [0; 32];
        }
        let digest = Digest::blake3(&header.encode(kind));
        let mut salt = [0; SALT_BYTES];
        for (to, from) in salt.iter_mut().zip(digest.as_bytes()) {
            *to = *from;
        }
        Self {
            device_bytes: header.device_bytes,
            salt,
        }
    }

    /// Appends a record.
    pub(super) fn encode(&self, number: u32, chunk: &TableChunk, out: &mut Vec<u8>) {
        let algorithm = match chunk.digest.algorithm() {
            Algorithm::Sha256 => SHA256,
            Algorithm::Blake3 => BLAKE3,
        };
        // A device has fewer than 2^32 blocks; what has more was refused before.
        let block = u32::try_from(chunk.place / BLOCK_BYTES).unwrap_or(u32::MAX);
        let mut raw = RawRecord {
            digest: *chunk.digest.as_bytes(),
            block: U32::new(block),
            bytes: U32::new(chunk.bytes),
            algorithm: U32::new(algorithm),
            check: [0; 20],
        };
        raw.check = self.check(number, &raw);
        out.extend_from_slice(raw.as_bytes());
    }

    /// Reads a record; nothing if it can't be believed.
    pub(super) fn decode(&self, number: u32, bytes: &[u8]) -> Option<TableChunk> {
        let raw = RawRecord::ref_from_bytes(bytes).ok()?;
        (raw.check == self.check(number, raw))
            .then(|| self.content(raw))
            .flatten()
    }

    /// Reads a record of a table whose records are checked all together.
    pub(super) fn decode_unchecked(&self, bytes: &[u8]) -> Option<TableChunk> {
        self.content(RawRecord::ref_from_bytes(bytes).ok()?)
    }

    fn content(&self, raw: &RawRecord) -> Option<TableChunk> {
        let algorithm = match raw.algorithm.get() {
            SHA256 => Algorithm::Sha256,
            BLAKE3 => Algorithm::Blake3,
            _ => return None,
        };
        let chunk = TableChunk {
            place: u64::from(raw.block.get()) * BLOCK_BYTES,
            bytes: raw.bytes.get(),
            digest: Digest::new(algorithm, raw.digest),
        };
        (chunk.bytes > 0 && chunk.end() <= self.device_bytes).then_some(chunk)
    }

    fn check(&self, number: u32, raw: &RawRecord) -> [u8; 20] {
        let message = RawMessage {
            salt: self.salt,
            number: U32::new(number),
            digest: raw.digest,
            block: raw.block,
            bytes: raw.bytes,
            algorithm: raw.algorithm,
        };
        let digest = Digest::blake3(message.as_bytes());
        let mut check = [0; 20];
        for (to, from) in check.iter_mut().zip(digest.as_bytes()) {
            *to = *from;
        }
        check
    }
}
