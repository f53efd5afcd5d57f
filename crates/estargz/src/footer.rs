//! Footers: the last member of a blob, which says where the table of contents begins.

use crate::error::ReadError;

/// The most bytes that a footer has.
pub const FOOTER_BYTES_MAX: u64 = 51;

/// A gzip header: magic, deflate, "there is an extra field", no time, any flags, any system.
const HEADER_BYTES: usize = 10;
const HEADER: [u8; 4] = [0x1f, 0x8b, 8, 4];
/// What follows the offset.
const MAGIC: &[u8] = b"STARGZ";
const MAGIC_EXTERNAL: &[u8] = b"STARGZEXTERNALTOC";
/// Hexadecimal digits of the offset.
const OFFSET_DIGITS: usize = 16;
/// The name and size of the subfield that holds offset and magic.
const SUBFIELD: &[u8] = b"SG\x16\0";
/// An empty deflate block that is the last, and the checksum and size of nothing.
const EMPTY: [u8; 13] = [1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];

/// What a footer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// Where in the blob the member with the table of contents begins, in bytes.
    pub toc_offset: u64,
    /// The footer's own size in bytes, at the end of the blob.
    pub bytes: u64,
}

impl Footer {
    /// Finds the footer at the end of `tail`, the last bytes of a blob: today's, of 51 bytes, or the one of
    /// the format's predecessor, of 47. Whether its offset lies in the blob is not known here.
    ///
    /// # Errors
    /// [`ReadError::Footer`], [`ReadError::ExternalToc`].
    pub fn parse(tail: &[u8]) -> Result<Self, ReadError> {
        let offset = |text: &[u8]| {
            let (digits, magic) = text.split_at_checked(OFFSET_DIGITS)?;
            if magic != MAGIC || !digits.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
            u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
        };
        let text_bytes = OFFSET_DIGITS + MAGIC.len();
        let current = extra(tail, SUBFIELD.len() + text_bytes);
        let current = current.and_then(|extra| extra.strip_prefix(SUBFIELD));
        let found = current.and_then(offset).map(|offset| (offset, 51));
        let legacy = || Some((offset(extra(tail, text_bytes)?)?, 47));
        if let Some((toc_offset, bytes)) = found.or_else(legacy) {
            return Ok(Self { toc_offset, bytes });
        }
        let external = extra(tail, SUBFIELD.len() + MAGIC_EXTERNAL.len());
        if external.is_some_and(|extra| extra.ends_with(MAGIC_EXTERNAL)) {
            return Err(ReadError::ExternalToc);
        }
        Err(ReadError::Footer)
    }
}

/// The footer of a blob whose table begins at `toc_offset`.
pub(crate) fn encode(toc_offset: u64) -> Vec<u8> {
    let text = format!("{toc_offset:0OFFSET_DIGITS$x}");
    let length = SUBFIELD.len() + OFFSET_DIGITS + MAGIC.len();
    let length = u16::try_from(length).unwrap_or_default().to_le_bytes();
    // No time, no flags, an unknown system: as the deployed writer.
    let rest_of_header = [0, 0, 0, 0, 0, 0xff];
    [
        &HEADER[..],
        &rest_of_header,
        &length,
        SUBFIELD,
        text.as_bytes(),
        MAGIC,
        &EMPTY,
    ]
    .concat()
}

/// The extra field of the empty member that `tail` ends in, if there is one with a field of so many bytes.
fn extra(tail: &[u8], bytes: usize) -> Option<&[u8]> {
    let head_bytes = HEADER_BYTES + 2;
    let start = tail.len().checked_sub(head_bytes + bytes + EMPTY.len())?;
    let (head, rest) = tail.get(start..)?.split_at_checked(head_bytes)?;
    let (extra, end) = rest.split_at_checked(bytes)?;
    let (header, length) = head.split_at_checked(HEADER_BYTES)?;
    let length: [u8; 2] = length.try_into().ok()?;
    let fits = header.starts_with(&HEADER)
        && usize::from(u16::from_le_bytes(length)) == bytes
        && end == EMPTY;
    fits.then_some(extra)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_deployed_writer_leaves_is_found() {
        // Of `ctr-remote image convert`, stargz-snapshotter 0.12.
        let written =
            b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff\x1a\x00SG\x16\x0000000000000adc9fSTARGZ\
            \x01\x00\x00\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00";
        let footer = Footer::parse(written).unwrap();
        assert_eq!((footer.toc_offset, footer.bytes), (0xadc9f, 51));
        assert_eq!(encode(0xadc9f), written);
        let longer = [b"anything", &written[..]].concat();
        assert_eq!(Footer::parse(&longer).unwrap(), footer);
        for at in 0..written.len() {
            let mut changed = written.to_vec();
            changed[at] ^= 0x80;
            let time_or_system = (4..HEADER_BYTES).contains(&at);
            assert_eq!(Footer::parse(&changed).is_ok(), time_or_system, "{at}");
            assert!(Footer::parse(&written[at + 1..]).is_err());
        }
    }

    #[test]
    fn the_footer_of_the_predecessor_is_found() {
        let written = b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff\x16\x000000000000000123STARGZ\
            \x01\x00\x00\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00";
        let footer = Footer::parse(written).unwrap();
        assert_eq!((footer.toc_offset, footer.bytes), (0x123, 47));
    }

    #[test]
    fn a_table_in_another_image_is_told_apart() {
        let written =
            b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff\x15\x00SG\x11\x00STARGZEXTERNALTOC\
            \x01\x00\x00\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00";
        assert_eq!(written.len(), 46);
        assert!(matches!(
            Footer::parse(written),
            Err(ReadError::ExternalToc)
        ));
    }
}
