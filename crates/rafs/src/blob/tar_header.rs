//! The tar headers that follow each part of a blob.

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::raw::RawTarHeader;

/// Bytes in a tar header.
pub(crate) const TAR_HEADER_BYTES: usize = 512;

const MAGIC: [u8; 8] = *b"ustar  \0";
const REGULAR: u8 = b'0';
/// The largest size that 11 octal digits express.
const OCTAL_MAX: u64 = 0o777_7777_7777;

/// The header of a part. No more than name, size and the time 0 is in it, as nydus writes it.
pub(crate) fn encode(name: &str, bytes: u64) -> [u8; TAR_HEADER_BYTES] {
    let mut header = RawTarHeader::new_zeroed();
    for (to, from) in header.name.iter_mut().zip(name.as_bytes()) {
        *to = *from;
    }
    header.size = encode_size(bytes);
    header.mtime = encode_size(0);
    header.kind = REGULAR;
    header.magic = MAGIC;
    header.checksum = *b"        ";
    let sum = checksum(header.as_bytes());
    header.checksum = *b"0000000\0";
    octal(&mut header.checksum, u64::from(sum), 7);
    zerocopy::transmute!(header)
}

fn encode_size(bytes: u64) -> [u8; 12] {
    let mut field = [0; 12];
    if bytes <= OCTAL_MAX {
        octal(&mut field, bytes, 11);
    } else {
        // GNU's base 256: big-endian behind a marker.
        if let Some(low) = field.last_chunk_mut::<8>() {
            *low = bytes.to_be_bytes();
        }
        if let Some(marker) = field.first_mut() {
            *marker = 0x80;
        }
    }
    field
}

fn octal(field: &mut [u8], mut value: u64, digits: usize) {
    for digit in field.iter_mut().take(digits).rev() {
        let [low, ..] = (value & 7).to_le_bytes();
        *digit = b'0' + low;
        value >>= 3;
    }
}

fn checksum(header: &[u8]) -> u32 {
    header.iter().map(|byte| u32::from(*byte)).sum()
}

/// Name and size of the part that a header follows; `None` if it is no such header.
pub(crate) fn decode(header: &[u8]) -> Option<(&str, u64)> {
    let (raw, _) = RawTarHeader::ref_from_prefix(header).ok()?;
    let mut blank = *raw;
    blank.checksum = *b"        ";
    if parse_octal(&raw.checksum)? != u64::from(checksum(blank.as_bytes())) {
        return None;
    }
    if raw.kind != REGULAR || raw.magic != MAGIC {
        return None;
    }
    let name = raw.name.split(|byte| *byte == 0).next()?;
    let size = match raw.size.first() {
        Some(0x80) => {
            let [0x80, 0, 0, 0, low @ ..] = raw.size else {
                return None;
            };
            u64::from_be_bytes(low)
        }
        _ => parse_octal(&raw.size)?,
    };
    Some((std::str::from_utf8(name).ok()?, size))
}

fn parse_octal(field: &[u8]) -> Option<u64> {
    let digits = field.split(|byte| matches!(byte, 0 | b' ')).next()?;
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}
