//! Headers made by hand, field by field, without the code under test.

use std::ops::Range;

/// A block that becomes a header.
pub(super) struct Raw([u8; 512]);

pub(super) const MODE: Range<usize> = 100..108;
pub(super) const UID: Range<usize> = 108..116;
pub(super) const SIZE: Range<usize> = 124..136;
pub(super) const MTIME: Range<usize> = 136..148;
pub(super) const LINK: Range<usize> = 157..257;
pub(super) const MAJOR: Range<usize> = 329..337;
pub(super) const MINOR: Range<usize> = 337..345;
pub(super) const PREFIX: Range<usize> = 345..500;
pub(super) const STAR_TRAILER: Range<usize> = 508..512;
pub(super) const GNU_EXTENDED: usize = 482;
pub(super) const GNU_REAL: Range<usize> = 483..495;

/// What ends an archive.
pub(super) const END: [u8; 1024] = [0; 1024];

impl Raw {
    /// The oldest kind.
    pub(super) fn v7(name: &str, flag: u8) -> Self {
        let mut raw = Self([0; 512]);
        raw.0[..name.len()].copy_from_slice(name.as_bytes());
        raw.0[156] = flag;
        raw.set(MODE, b"0000644\0").set(SIZE, b"00000000000\0")
    }

    pub(super) fn ustar(name: &str, flag: u8) -> Self {
        Self::v7(name, flag).set(257..265, b"ustar\x0000")
    }

    pub(super) fn gnu(name: &str, flag: u8) -> Self {
        Self::v7(name, flag).set(257..265, b"ustar  \0")
    }

    pub(super) fn set(mut self, range: Range<usize>, bytes: &[u8]) -> Self {
        let at = range.start;
        assert!(bytes.len() <= range.len());
        self.0[range].fill(0);
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(super) fn size(self, bytes: usize) -> Self {
        self.set(SIZE, format!("{bytes:011o}\0").as_bytes())
    }

    /// The old sparse map's slot of that number.
    pub(super) fn piece(self, slot: usize, offset: usize, bytes: usize) -> Self {
        let at = 386 + 24 * slot;
        self.set(
            at..at + 24,
            format!("{offset:011o}\0{bytes:011o}\0").as_bytes(),
        )
    }

    /// The block with its checksum.
    pub(super) fn block(&self) -> [u8; 512] {
        let mut block = self.0;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    /// The block with a checksum of signed bytes.
    pub(super) fn signed_block(&self) -> [u8; 512] {
        let mut block = self.0;
        block[148..156].fill(b' ');
        let sum: i32 = block.iter().map(|byte| i32::from(byte.cast_signed())).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    /// Header and padded data.
    pub(super) fn with(self, data: &[u8]) -> Vec<u8> {
        let mut bytes = self.size(data.len()).block().to_vec();
        bytes.extend_from_slice(&padded(data));
        bytes
    }
}

pub(super) fn padded(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    bytes.resize(data.len().next_multiple_of(512), 0);
    bytes
}

/// A pax header with these records.
pub(super) fn pax(flag: u8, records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (keyword, value) in records {
        let rest = keyword.len() + value.len() + 3;
        let length = (rest..).find(|length| *length == rest + length.to_string().len());
        data.extend_from_slice(format!("{} {keyword}=", length.unwrap()).as_bytes());
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    Raw::ustar("PaxHeaders/x", flag).with(&data)
}
