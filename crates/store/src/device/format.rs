//! The map file, format 1: a header, an area of durable bits, an area of volatile bits.
//!
//! Both areas are made of sectors of 512 bytes, the most that a disk writes at once without tearing:
//! each is 63 words of bits and a check over them, their place, and the data file that they speak of.
//! A sector of zeros is one that was never written. The areas begin at multiples of 4096 bytes.

use std::ops::Range;

use draught_digest::Digest;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::bits::{narrow, widen};
use crate::key::DeviceKey;

/// The bytes of a block: the page of the kernel that reads the devices, and the unit of presence.
pub const BLOCK_BYTES: u64 = 4096;

/// The most bytes a device can have. One TiB is more than any blob, and its bits still take no more
/// than 64 MiB of memory.
pub const DEVICE_BYTES_MAX: u64 = 1 << 40;

/// The bytes of a sector: what a disk writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;

/// The words of bits in a sector.
pub(super) const SECTOR_WORDS: usize = 63;

/// The blocks that a sector speaks of.
const SECTOR_BLOCKS: u64 = 63 * 64;

const MAGIC: [u8; 8] = *b"\x89DRmap\r\n";
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 4096;

/// A boot of the machine, as the digest of its name. All zeros is no boot: nothing volatile counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BootId([u8; 32]);

impl BootId {
    pub(crate) const NONE: Self = Self([0; 32]);

    /// From the text in `/proc/sys/kernel/random/boot_id`.
    pub(crate) fn new(text: &str) -> Self {
        Self(*Digest::blake3(text.trim().as_bytes()).as_bytes())
    }
}

/// The data file that a map speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) key: DeviceKey,
    /// The device's size.
    pub(super) bytes: u64,
    /// The data file's inode number.
    pub(super) inode: u64,
    /// When that inode was made, in nanoseconds of some epoch: numbers of inodes are used again.
    pub(super) born_ns: u64,
}

/// Where things are in the map of a device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    sectors: usize,
}

impl Geometry {
    /// For a device of so many bytes, at most [`DEVICE_BYTES_MAX`].
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            sectors: narrow(bytes.div_ceil(BLOCK_BYTES).div_ceil(SECTOR_BLOCKS)),
        }
    }

    /// The sectors of one area.
    pub(super) fn sectors(self) -> usize {
        self.sectors
    }

    /// The words of one area.
    pub(super) fn words(self) -> usize {
        self.sectors * SECTOR_WORDS
    }

    /// The length of the whole file.
    pub(super) fn file_bytes(self) -> u64 {
        HEADER_BYTES + 2 * self.area_bytes()
    }

    /// The offset of a sector in the file.
    pub(super) fn offset(self, area: Area, sector: usize) -> u64 {
        let base = match area {
            Area::Durable => HEADER_BYTES,
            Area::Volatile => HEADER_BYTES + self.area_bytes(),
        };
        base + widen(sector) * widen(SECTOR_BYTES)
    }

    fn area_bytes(self) -> u64 {
        (widen(self.sectors) * widen(SECTOR_BYTES)).next_multiple_of(BLOCK_BYTES)
    }
}

/// The sectors that speak of `blocks`, which are not none.
pub(super) fn sectors_of(blocks: &Range<u64>) -> Range<usize> {
    narrow(blocks.start / SECTOR_BLOCKS)..narrow(blocks.end.div_ceil(SECTOR_BLOCKS))
}

/// Which bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Area {
    /// Bits whose data was durable before they were written.
    Durable,
    /// Bits whose data the page cache had before they were written.
    Volatile,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    version: U32,
    block_bytes: U32,

    device_bytes: U64,
    data_inode: U64,

    data_born_ns: U64,
    reserved: [u8; 8],

    key: [u8; 32],

    boot: [u8; 32],

    /// BLAKE3 of all that is above.
    check: [u8; 32],
}
const HEADER_USED: usize = 144;
const _: () = assert!(size_of::<RawHeader>() == HEADER_USED);
// The header must not tear either.
const _: () = assert!(HEADER_USED <= SECTOR_BYTES);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawSector {
    words: [U64; SECTOR_WORDS],
    check: [u8; 8],
}
const _: () = assert!(size_of::<RawSector>() == SECTOR_BYTES);

/// Why a map is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Distrust {
    #[error("it is missing")]
    Missing,
    #[error("it has another length than the device's map")]
    Length,
    #[error("it is not a map of format 1")]
    Magic,
    #[error("its header is damaged")]
    Damaged,
    #[error("it belongs to another data file")]
    Foreign,
}

/// The header's sector.
pub(super) fn encode_header(identity: &Identity, boot: BootId) -> [u8; SECTOR_BYTES] {
    let mut header = RawHeader {
        magic: MAGIC,
        version: U32::new(VERSION),
        block_bytes: U32::new(4096),
        device_bytes: U64::new(identity.bytes),
        data_inode: U64::new(identity.inode),
        data_born_ns: U64::new(identity.born_ns),
        reserved: [0; 8],
        key: identity.key.0,
        boot: boot.0,
        check: [0; 32],
    };
    header.check = header_check(&header);
    let mut sector = [0; SECTOR_BYTES];
    for (to, from) in sector.iter_mut().zip(header.as_bytes()) {
        *to = *from;
    }
    sector
}

/// Reads a header's sector that must speak of `identity`; its boot.
pub(super) fn decode_header(
    sector: &[u8; SECTOR_BYTES],
    identity: &Identity,
) -> Result<BootId, Distrust> {
    let (header, rest) = RawHeader::read_from_prefix(sector).map_err(|_| Distrust::Length)?;
    if header.magic != MAGIC || header.version != VERSION || header.block_bytes != 4096 {
        return Err(Distrust::Magic);
    }
    if header.check != header_check(&header) || rest.iter().any(|byte| *byte != 0) {
        return Err(Distrust::Damaged);
    }
    let found = Identity {
        key: DeviceKey(header.key),
        bytes: header.device_bytes.get(),
        inode: header.data_inode.get(),
        born_ns: header.data_born_ns.get(),
    };
    if found != *identity || header.reserved != [0; 8] {
        return Err(Distrust::Foreign);
    }
    Ok(BootId(header.boot))
}

fn header_check(header: &RawHeader) -> [u8; 32] {
    let (above, _) = header.as_bytes().split_at(HEADER_USED - 32);
    *Digest::blake3(above).as_bytes()
}

/// Writes and reads the sectors of one map.
#[derive(Debug, Clone, Copy)]
pub(super) struct SectorCodec {
    /// The digest of the identity: the check of a sector is wrong in the map of any other file.
    salt: [u8; 32],
}

impl SectorCodec {
    pub(super) fn new(identity: &Identity) -> Self {
        let header = encode_header(identity, BootId::NONE);
        Self {
            salt: *Digest::blake3(&header).as_bytes(),
        }
    }

    /// Appends one sector; `words` are [`SECTOR_WORDS`], missing ones are zero.
    pub(super) fn encode(&self, area: Area, sector: usize, words: &[u64], out: &mut Vec<u8>) {
        let mut raw = RawSector {
            words: [U64::ZERO; SECTOR_WORDS],
            check: [0; 8],
        };
        for (to, from) in raw.words.iter_mut().zip(words) {
            *to = U64::new(*from);
        }
        raw.check = self.check(area, sector, &raw);
        out.extend_from_slice(raw.as_bytes());
    }

    /// Reads one sector into `words`, which are [`SECTOR_WORDS`]; false, and none set, if it can't be
    /// believed.
    pub(super) fn decode(
        &self,
        area: Area,
        sector: usize,
        bytes: &[u8],
        words: &mut [u64],
    ) -> bool {
        words.fill(0);
        if bytes.iter().all(|byte| *byte == 0) {
            return true;
        }
        let Ok(raw) = RawSector::ref_from_bytes(bytes) else {
            return false;
        };
        if raw.check != self.check(area, sector, raw) {
            return false;
        }
        for (to, from) in words.iter_mut().zip(&raw.words) {
            *to = from.get();
        }
        true
    }

    fn check(&self, area: Area, sector: usize, raw: &RawSector) -> [u8; 8] {
        let mut message = Vec::with_capacity(32 + 1 + 8 + SECTOR_BYTES);
        message.extend_from_slice(&self.salt);
        message.push(match area {
            Area::Durable => b'd',
            Area::Volatile => b'v',
        });
        message.extend_from_slice(U64::new(widen(sector)).as_bytes());
        message.extend_from_slice(raw.words.as_bytes());
        let digest = Digest::blake3(&message);
        let mut check = [0; 8];
        for (to, from) in check.iter_mut().zip(digest.as_bytes()) {
            *to = *from;
        }
        check
    }
}
