//! A header: one block.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::BLOCK_BYTES;
use crate::error::TarError;
use crate::number;

/// Where all dialects agree, and what they don't agree about.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawHeader {
    pub(crate) name: [u8; 100],
    pub(crate) mode: [u8; 8],
    pub(crate) uid: [u8; 8],
    pub(crate) gid: [u8; 8],
    pub(crate) size: [u8; 12],
    pub(crate) mtime: [u8; 12],
    pub(crate) checksum: [u8; 8],
    pub(crate) typeflag: u8,
    pub(crate) linkname: [u8; 100],
    pub(crate) magic: [u8; 8],
    pub(crate) uname: [u8; 32],
    pub(crate) gname: [u8; 32],
    pub(crate) devmajor: [u8; 8],
    pub(crate) devminor: [u8; 8],
    pub(crate) rest: [u8; 167],
}
const _: () = assert!(size_of::<RawHeader>() == BLOCK_BYTES);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawUstar {
    pub(crate) prefix: [u8; 155],
    pub(crate) padding: [u8; 12],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawStar {
    prefix: [u8; 131],
    atime: [u8; 12],
    ctime: [u8; 12],
    padding: [u8; 8],
    trailer: [u8; 4],
}

/// A piece of data in an old sparse file: where it begins, how long it is.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawPiece {
    pub(crate) offset: [u8; 12],
    pub(crate) bytes: [u8; 12],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawGnu {
    pub(crate) atime: [u8; 12],
    pub(crate) ctime: [u8; 12],
    pub(crate) offset: [u8; 12],
    pub(crate) longnames: [u8; 4],
    pub(crate) unused: u8,
    pub(crate) pieces: [RawPiece; 4],
    pub(crate) extended: u8,
    pub(crate) real_bytes: [u8; 12],
    pub(crate) padding: [u8; 17],
}

/// More pieces of an old sparse file: blocks that follow its header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawPieces {
    pub(crate) pieces: [RawPiece; 21],
    pub(crate) extended: u8,
    pub(crate) padding: [u8; 7],
}
const _: () = assert!(size_of::<RawPieces>() == BLOCK_BYTES);

/// Who wrote it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// The magic and the version of POSIX.
pub(crate) const MAGIC_USTAR: [u8; 8] = *b"ustar\x0000";
/// The same of GNU tar before POSIX.
pub(crate) const MAGIC_GNU: [u8; 8] = *b"ustar  \0";

/// A field up to its first NUL.
pub(crate) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// As much of a name as an error message should show, in bytes.
const SHOWN_BYTES_MAX: usize = 256;

pub(crate) fn show(bytes: &[u8]) -> String {
    let shown = bytes.get(..SHOWN_BYTES_MAX).unwrap_or(bytes);
    String::from_utf8_lossy(shown).into_owned()
}

pub(crate) fn bad_number(offset: u64, field: &'static str, value: &[u8]) -> TarError {
    let value = show(value.get(..32).unwrap_or(value));
    TarError::Number {
        offset,
        field,
        value,
    }
}

impl RawHeader {
    /// The header in a block whose checksum is right.
    pub(crate) fn parse(block: [u8; BLOCK_BYTES], offset: u64) -> Result<Self, TarError> {
        let header: Self = zerocopy::transmute!(block);
        let stored = number::parse_octal(&header.checksum);
        let (unsigned, signed) = header.sums();
        if stored == Some(unsigned) || stored == Some(signed) {
            Ok(header)
        } else {
            Err(TarError::Checksum { offset })
        }
    }

    /// The sum of all bytes with the checksum's own as blanks; and the same with bytes that are
    /// signed, as some old systems computed it.
    fn sums(&self) -> (i64, i64) {
        let fixed = i64::from(b' ') * 8;
        let of_field = |sign: fn(&u8) -> i64| {
            let all: i64 = self.as_bytes().iter().map(sign).sum();
            let field: i64 = self.checksum.iter().map(sign).sum();
            all - field + fixed
        };
        (
            of_field(|byte| i64::from(*byte)),
            of_field(|byte| i64::from(byte.cast_signed())),
        )
    }

    /// Makes the checksum right.
    pub(crate) fn seal(&mut self) {
        let (sum, _) = self.sums();
        // 512 bytes of 255 have six octal digits: they fit.
        let text = format!("{sum:06o}\0 ");
        if let Some(text) = text.as_bytes().first_chunk() {
            self.checksum = *text;
        }
    }

    pub(crate) fn dialect(&self) -> Dialect {
        let star: &RawStar = zerocopy::transmute_ref!(&self.rest);
        if self.magic == MAGIC_GNU {
            Dialect::Gnu
        } else if !self.magic.starts_with(b"ustar\0") {
            Dialect::V7
        } else if star.trailer == *b"tar\0" {
            Dialect::Star
        } else {
            Dialect::Ustar
        }
    }

    /// The owner's name; the oldest headers have none.
    pub(crate) fn user(&self) -> &[u8] {
        match self.dialect() {
            Dialect::V7 => &[],
            _ => text(&self.uname),
        }
    }

    /// The group's name; the oldest headers have none.
    pub(crate) fn group(&self) -> &[u8] {
        match self.dialect() {
            Dialect::V7 => &[],
            _ => text(&self.gname),
        }
    }

    pub(crate) fn gnu(&self) -> &RawGnu {
        zerocopy::transmute_ref!(&self.rest)
    }

    /// The path in prefix and name.
    pub(crate) fn path(&self) -> Vec<u8> {
        let ustar: &RawUstar = zerocopy::transmute_ref!(&self.rest);
        let star: &RawStar = zerocopy::transmute_ref!(&self.rest);
        let prefix = match self.dialect() {
            Dialect::V7 => &[],
            Dialect::Ustar => text(&ustar.prefix),
            Dialect::Star => text(&star.prefix),
            // There is none, but Go before 1.8, and with it Docker until 2017, wrote one where the
            // times are. Go recognizes that by times that are none and a prefix in ASCII; so do we.
            Dialect::Gnu => {
                let is_time =
                    |field: &[u8; 12]| field.starts_with(b"\0") || number::parse(field).is_some();
                let gnu = self.gnu();
                let prefix = text(&ustar.prefix);
                if (is_time(&gnu.atime) && is_time(&gnu.ctime)) || !prefix.is_ascii() {
                    &[]
                } else {
                    prefix
                }
            }
        };
        if prefix.is_empty() {
            return text(&self.name).to_vec();
        }
        [prefix, b"/", text(&self.name)].concat()
    }
}
