//! The table of contents as a document: taken out of its member, verified, and gone through entry by entry.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use draught_codec::{LayerDecoder, LayerLimits};
use draught_digest::Digest;
use draught_tar::Reader;
use draught_tree::EntryKind;
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::ReadError;

/// The name of the table's file, in its own archive and in the layer.
pub(crate) const TOC_NAME: &str = "stargz.index.json";
/// The only version there is.
pub(crate) const VERSION: u64 = 1;
/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 << 10;
/// The largest header and padding that a table's archive may have besides its file.
const ARCHIVE_BYTES_MORE: u64 = 64 << 10;

/// Takes the table out of its member and verifies it.
pub(crate) fn unpack(stored: &[u8], expected: &Digest, limit: u64) -> Result<Vec<u8>, ReadError> {
    let limits = LayerLimits {
        decoded_bytes_max: limit.saturating_add(ARCHIVE_BYTES_MORE),
        ..LayerLimits::default()
    };
    let decoder = LayerDecoder::new(stored, limits).map_err(ReadError::Decompress)?;
    let mut reader = Reader::new(decoder, draught_tar::Limits::default());
    let entry = reader.next_entry().map_err(ReadError::Archive)?;
    let entry = entry.filter(|entry| *entry.path == *TOC_NAME.as_bytes());
    let Some(EntryKind::File { bytes, .. }) = entry.map(|entry| entry.kind) else {
        return Err(ReadError::NoToc);
    };
    if bytes > limit {
        return Err(ReadError::TooLarge {
            what: "bytes of its table of contents",
            value: bytes,
            limit,
        });
    }
    let mut json = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = reader.read_data(&mut piece).map_err(ReadError::Archive)?;
        if read == 0 {
            break;
        }
        json.extend_from_slice(piece.get(..read).unwrap_or_default());
    }
    let (expected, got) = (*expected, expected.algorithm().digest(&json));
    if got != expected {
        return Err(ReadError::TocDigest { expected, got });
    }
    Ok(json)
}

/// An entry's place alone.
#[derive(Debug, Deserialize)]
pub(crate) struct RawPlace<'a> {
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Cow<'a, str>,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) offset: u64,
}

impl RawPlace<'_> {
    /// Whether it begins a member or lies in one.
    pub(crate) fn has_data(&self) -> bool {
        match &*self.kind {
            "reg" => self.size > 0,
            kind => kind == "chunk",
        }
    }
}

/// An entry as the document has it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawEntry<'a> {
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Cow<'a, str>,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(borrow, default, rename = "modtime")]
    pub(crate) modified: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) link_name: Cow<'a, str>,
    #[serde(default)]
    pub(crate) mode: u64,
    #[serde(default)]
    pub(crate) uid: u32,
    #[serde(default)]
    pub(crate) gid: u32,
    #[serde(default)]
    pub(crate) dev_major: u32,
    #[serde(default)]
    pub(crate) dev_minor: u32,
    /// Values are base64.
    #[serde(borrow, default)]
    pub(crate) xattrs: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
    /// Of the whole file.
    #[serde(borrow, default)]
    pub(crate) digest: Cow<'a, str>,
    /// Where the chunk's member begins.
    #[serde(default)]
    pub(crate) offset: u64,
    /// Where in the decoded member the chunk begins.
    #[serde(default)]
    pub(crate) inner_offset: u64,
    /// Where in the file the chunk begins.
    #[serde(default)]
    pub(crate) chunk_offset: u64,
    /// 0: up to the end of the file.
    #[serde(default)]
    pub(crate) chunk_size: u64,
    #[serde(borrow, default)]
    pub(crate) chunk_digest: Cow<'a, str>,
}

/// Goes through the entries of a table, one at a time: there may be millions, and each is large.
pub(crate) fn for_each<'a, T: Deserialize<'a>>(
    json: &'a [u8],
    entries_max: u64,
    visit: &mut dyn FnMut(T) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut failed = None;
    let mut version = None;
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let table = Table {
        entries: Entries {
            left: entries_max,
            entries_max,
            visit,
            failed: &mut failed,
            of: PhantomData,
        },
        version: &mut version,
    };
    let read = deserializer
        .deserialize_map(table)
        .and_then(|()| deserializer.end());
    // What a visit said comes before that it stopped the reading.
    if let Some(failed) = failed {
        return Err(failed);
    }
    read.map_err(ReadError::Json)?;
    match version {
        Some(VERSION) => Ok(()),
        version => Err(ReadError::Version {
            version: version.unwrap_or(0),
        }),
    }
}

struct Table<'v, T> {
    entries: Entries<'v, T>,
    version: &'v mut Option<u64>,
}

impl<'a, T: Deserialize<'a>> Visitor<'a> for Table<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of contents")
    }

    fn visit_map<M: MapAccess<'a>>(mut self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key::<Cow<'a, str>>()? {
            match &*key {
                "version" => *self.version = Some(map.next_value()?),
                "entries" => map.next_value_seed(&mut self.entries)?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

struct Entries<'v, T> {
    left: u64,
    entries_max: u64,
    visit: &'v mut dyn FnMut(T) -> Result<(), ReadError>,
    failed: &'v mut Option<ReadError>,
    of: PhantomData<T>,
}

impl<'a, T: Deserialize<'a>> DeserializeSeed<'a> for &mut Entries<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'a, T: Deserialize<'a>> Visitor<'a> for &mut Entries<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<S: SeqAccess<'a>>(self, mut entries: S) -> Result<(), S::Error> {
        while let Some(entry) = entries.next_element::<T>()? {
            let visited = match self.left.checked_sub(1) {
                Some(left) => {
                    self.left = left;
                    (self.visit)(entry)
                }
                None => Err(ReadError::TooLarge {
                    what: "entries of its table of contents",
                    value: self.entries_max.saturating_add(1),
                    limit: self.entries_max,
                }),
            };
            if let Err(error) = visited {
                *self.failed = Some(error);
                return Err(de::Error::custom("it was stopped"));
            }
        }
        Ok(())
    }
}
