//! Pax records: `length keyword=value`, one a line.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use draught_tree::Xattrs;

use crate::error::{Limits, TarError};
use crate::header::bad_number;
use crate::number;

/// Bytes of an extended attribute's name: `XATTR_NAME_MAX` of Linux.
const XATTR_NAME_BYTES_MAX: usize = 255;

/// libarchive leaves the padding out, others may not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

type Bytes = Box<[u8]>;

/// What GNU tar says of a sparse file, in one of three versions.
#[derive(Debug, Clone, Default)]
pub(crate) struct SparseRecords {
    pub(crate) major: Option<u64>,
    pub(crate) minor: Option<u64>,
    pub(crate) name: Option<Bytes>,
    pub(crate) size: Option<u64>,
    pub(crate) real_size: Option<u64>,
    pub(crate) piece_count: Option<u64>,
    /// Offsets and lengths by turns, from version 0.1's one record or 0.0's many.
    pub(crate) map: Vec<u64>,
    pub(crate) has_map: bool,
}

/// What the records in force say; `None` leaves it to the header.
#[derive(Debug, Clone, Default)]
pub(crate) struct Records {
    pub(crate) path: Option<Bytes>,
    pub(crate) linkpath: Option<Bytes>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) mtime: Option<(i64, u32)>,
    pub(crate) devmajor: Option<u32>,
    pub(crate) devminor: Option<u32>,
    pub(crate) sparse: SparseRecords,
    pub(crate) uname: Option<Bytes>,
    pub(crate) gname: Option<Bytes>,
    /// Those of the entry itself whose keywords mean nothing here.
    pub(crate) others: BTreeMap<Bytes, Bytes>,
    schily: BTreeMap<Bytes, Bytes>,
    libarchive: BTreeMap<Bytes, Bytes>,
    xattr_bytes: usize,
}

/// A pax header that is being read.
struct Context<'a> {
    offset: u64,
    global: bool,
    limits: &'a Limits,
}

impl Context<'_> {
    fn bad(&self, problem: &'static str) -> TarError {
        TarError::Pax {
            offset: self.offset,
            problem,
        }
    }

    fn number<T: TryFrom<u64>>(
        &self,
        field: &'static str,
        value: &[u8],
    ) -> Result<Option<T>, TarError> {
        if value.is_empty() {
            return Ok(None);
        }
        let number = number::parse_decimal(value).and_then(|number| T::try_from(number).ok());
        let number = number.ok_or_else(|| bad_number(self.offset, field, value))?;
        Ok(Some(number))
    }

    fn name(&self, what: &'static str, value: &[u8]) -> Result<Option<Bytes>, TarError> {
        if value.is_empty() {
            return Ok(None);
        }
        if value.contains(&0) {
            return Err(self.bad("a path or a link's target has a NUL byte in it"));
        }
        check(self.offset, what, value.len(), self.limits.name_bytes_max)?;
        Ok(Some(value.into()))
    }
}

pub(crate) fn check(
    offset: u64,
    what: &'static str,
    value: usize,
    limit: usize,
) -> Result<(), TarError> {
    if value <= limit {
        return Ok(());
    }
    Err(TarError::TooLarge {
        offset,
        what,
        value: value as u64,
        limit: limit as u64,
    })
}

/// Takes the first record off: keyword, value and what follows.
fn split(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    // 20 digits say more than any header holds.
    let digits = data.iter().take(20).position(|byte| *byte == b' ')?;
    let length = number::parse_decimal(data.get(..digits)?)?;
    let (record, rest) = data.split_at_checked(usize::try_from(length).ok()?)?;
    let record = record.get(digits + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((record.get(..equals)?, record.get(equals + 1..)?, rest))
}

impl Records {
    /// Puts a header's records on top of these: the last of two counts, an empty value takes back.
    pub(crate) fn apply(
        &mut self,
        mut data: &[u8],
        offset: u64,
        global: bool,
        limits: &Limits,
    ) -> Result<(), TarError> {
        let context = Context {
            offset,
            global,
            limits,
        };
        while !data.is_empty() {
            let (keyword, value, rest) = split(data)
                .ok_or_else(|| context.bad("a record is not \"length keyword=value\""))?;
            self.set(keyword, value, &context)?;
            data = rest;
        }
        Ok(())
    }

    fn set(&mut self, keyword: &[u8], value: &[u8], context: &Context<'_>) -> Result<(), TarError> {
        if context.global
            && (matches!(keyword, b"path" | b"linkpath" | b"size")
                || keyword.starts_with(b"GNU.sparse."))
        {
            return Err(context.bad("a global header gives all files one path, target or size"));
        }
        match keyword {
            b"path" => self.path = context.name("the length of the path", value)?,
            b"linkpath" => {
                self.linkpath = context.name("the length of the link's target", value)?;
            }
            b"size" => self.size = context.number("size", value)?,
            b"uid" => self.uid = context.number("uid", value)?,
            b"gid" => self.gid = context.number("gid", value)?,
            b"SCHILY.devmajor" => self.devmajor = context.number("SCHILY.devmajor", value)?,
            b"SCHILY.devminor" => self.devminor = context.number("SCHILY.devminor", value)?,
            b"uname" => self.uname = (!value.is_empty()).then(|| value.into()),
            b"gname" => self.gname = (!value.is_empty()).then(|| value.into()),
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => {
                let time = number::parse_time(value);
                let time = time.ok_or_else(|| bad_number(context.offset, "mtime", value))?;
                self.mtime = Some(time);
            }
            _ => {
                if let Some(name) = keyword.strip_prefix(b"SCHILY.xattr.") {
                    self.set_xattr(name.into(), value.into(), true, context)?;
                } else if let Some(name) = keyword.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let name = decode_percents(name);
                    let value = BASE64.decode(value);
                    let value =
                        value.map_err(|_| context.bad("a LIBARCHIVE.xattr is not in base64"))?;
                    self.set_xattr(name, value.into(), false, context)?;
                } else if let Some(keyword) = keyword.strip_prefix(b"GNU.sparse.") {
                    self.sparse.set(keyword, value, context)?;
                } else if !context.global && keyword != b"hdrcharset" {
                    // No more than an extended header holds, whose size is limited.
                    self.others.insert(keyword.into(), value.into());
                }
            }
        }
        Ok(())
    }

    fn set_xattr(
        &mut self,
        name: Bytes,
        value: Bytes,
        schily: bool,
        context: &Context<'_>,
    ) -> Result<(), TarError> {
        if name.is_empty() || name.contains(&0) || name.len() > XATTR_NAME_BYTES_MAX {
            return Err(context.bad("an extended attribute's name is empty, too long or has a NUL"));
        }
        let map = if schily {
            &mut self.schily
        } else {
            &mut self.libarchive
        };
        let name_bytes = name.len();
        self.xattr_bytes += name_bytes + value.len();
        if let Some(replaced) = map.insert(name, value) {
            self.xattr_bytes -= name_bytes + replaced.len();
        }
        // Both spellings of one attribute may be there: allow for twice the limit here; the sum of
        // what is left is checked when it is taken.
        check(
            context.offset,
            "the size of the extended attributes",
            self.xattr_bytes,
            context.limits.xattr_bytes_max.saturating_mul(2),
        )
    }

    /// The extended attributes, sorted by name.
    pub(crate) fn take_xattrs(&mut self, offset: u64, limits: &Limits) -> Result<Xattrs, TarError> {
        let mut xattrs = std::mem::take(&mut self.libarchive);
        xattrs.append(&mut self.schily);
        let bytes = xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        check(
            offset,
            "the size of the extended attributes",
            bytes,
            limits.xattr_bytes_max,
        )?;
        Ok(xattrs.into_iter().collect())
    }
}

impl SparseRecords {
    fn set(&mut self, keyword: &[u8], value: &[u8], context: &Context<'_>) -> Result<(), TarError> {
        match keyword {
            b"major" => self.major = context.number("GNU.sparse.major", value)?,
            b"minor" => self.minor = context.number("GNU.sparse.minor", value)?,
            b"name" => self.name = context.name("the length of the path", value)?,
            b"size" => self.size = context.number("GNU.sparse.size", value)?,
            b"realsize" => self.real_size = context.number("GNU.sparse.realsize", value)?,
            b"numblocks" => self.piece_count = context.number("GNU.sparse.numblocks", value)?,
            b"map" => {
                self.map.clear();
                self.has_map = true;
                for number in value
                    .split(|byte| *byte == b',')
                    .filter(|_| !value.is_empty())
                {
                    let number = context.number("GNU.sparse.map", number)?;
                    let number = number.ok_or_else(|| context.bad("GNU.sparse.map has a gap"))?;
                    self.map.push(number);
                }
            }
            b"offset" | b"numbytes" => {
                self.has_map = true;
                let is_offset = keyword == b"offset";
                let number = context.number("GNU.sparse.offset or numbytes", value)?;
                let number = number.filter(|_| self.map.len().is_multiple_of(2) == is_offset);
                let number = number.ok_or_else(|| {
                    context.bad("GNU.sparse.offset and GNU.sparse.numbytes don't take turns")
                })?;
                self.map.push(number);
            }
            _ => {}
        }
        Ok(())
    }
}

/// `%41` stands for `A`; what is no such triple stands for itself.
fn decode_percents(text: &[u8]) -> Bytes {
    let digit = |at: usize| {
        let digit = char::from(*text.get(at)?).to_digit(16)?;
        u8::try_from(digit).ok()
    };
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    decoded.into()
}

/// Appends a record.
pub(crate) fn push_record(records: &mut Vec<u8>, keyword: &[u8], value: &[u8]) {
    // The length counts its own digits.
    let rest = keyword.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(keyword);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_s_length_counts_itself() {
        for value_bytes in 0..1200 {
            let mut record = Vec::new();
            push_record(&mut record, b"k", &vec![b'v'; value_bytes]);
            let (keyword, value, rest) = split(&record).unwrap();
            assert_eq!(
                (keyword, value.len(), rest),
                (&b"k"[..], value_bytes, &b""[..])
            );
        }
    }

    #[test]
    fn records_that_break_the_syntax_are_refused() {
        for data in [
            "x",
            "5",
            "5 ",
            "5 a=",
            "6 a=b",
            "7 a=b\n",
            "4 a=\n\n",
            "5 ab\n",
            " 5 a=\n",
            "-5 a=\n",
            "99999999999999999999 a=b\n",
            "0 \n",
            "1 \n",
            "2 \n",
            "3 =\n",
        ] {
            assert_eq!(split(data.as_bytes()), None, "{data:?}");
        }
        assert!(split(b"4 =\n").is_some());
    }

    #[test]
    fn percents_are_decoded_where_they_are_escapes() {
        assert_eq!(&*decode_percents(b"user.a%3db%"), b"user.a=b%");
        assert_eq!(&*decode_percents(b"%zz%4"), b"%zz%4");
    }
}
