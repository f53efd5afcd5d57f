//! The table of contents as a document, from what is known when all is written.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD as BASE64;
use draught_digest::Digest;
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::output::Place;
use super::toc::{Index, Item, ItemKind, Toc};
use crate::document::VERSION;
use crate::time;

/// The table: what it takes for a document of any size to be written without being in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Document<'a> {
    pub(super) toc: &'a Toc,
    /// The items in the order in which they are stored.
    pub(super) order: &'a [Index],
    pub(super) places: &'a [Place],
    pub(super) chunk_bytes: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An entry as the document has it; fields that are zero or empty are left out, as the format's own tool does.
#[derive(Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct RawEntry<'a> {
    name: Cow<'a, str>,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(rename = "modtime", skip_serializing_if = "Option::is_none")]
    modified: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    link_name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_name: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    inner_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_minor: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    xattrs: Option<RawXattrs<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Text<Digest>>,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    /// Not said of a file's last or only chunk.
    #[serde(skip_serializing_if = "is_zero")]
    chunk_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_digest: Option<Text<Digest>>,
}

/// What is in the document as it prints itself.
#[derive(Debug)]
struct Text<T>(T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

#[derive(Debug)]
struct RawXattrs<'a>(&'a draught_tree::Xattrs);

impl Serialize for RawXattrs<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(name, value)| {
            // Names that are not UTF-8 were refused when their entries came.
            let name = String::from_utf8_lossy(name);
            (name, Text(Base64Display::new(value, &BASE64)))
        }))
    }
}

/// Who was named last under a number. Readers keep names in mind, so each has to be said only when it changes.
#[derive(Debug, Default)]
struct Names<'a>(BTreeMap<u32, &'a str>);

impl<'a> Names<'a> {
    fn if_new(&mut self, id: u32, name: Option<&'a str>) -> Option<&'a str> {
        let name = name?;
        let before = self.0.insert(id, name);
        (before != Some(name)).then_some(name)
    }
}

#[derive(Debug, Default)]
struct Owners<'a> {
    users: Names<'a>,
    groups: Names<'a>,
}

impl Document<'_> {
    /// Writes the document.
    pub(super) fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        // Writers wrap errors of `out`; give back what is inside.
        serde_json::to_writer(out, self).map_err(std::io::Error::from)
    }

    /// What the document says of an item: entries of its chunks follow its own.
    fn entries<'a>(
        &'a self,
        item: &'a Item,
        owners: &RefCell<Owners<'a>>,
    ) -> impl Iterator<Item = RawEntry<'a>> {
        let mut first = self.entry(item, &mut owners.borrow_mut());
        let ItemKind::File { bytes } = item.kind else {
            return Some(first).into_iter().chain(self.chunks(item, 0));
        };
        first.size = bytes;
        first.digest = item.digest.as_deref().copied().map(Text);
        if bytes > 0
            && let Some(place) = self.place(item, 0)
        {
            let more = bytes > self.chunk_bytes;
            first.offset = place.offset;
            first.inner_offset = place.inner;
            first.chunk_size = if more { self.chunk_bytes } else { 0 };
            first.chunk_digest = Some(Text(place.digest));
            first.digest.get_or_insert(Text(place.digest));
        }
        Some(first).into_iter().chain(self.chunks(item, bytes))
    }

    /// The chunks of a file but its first.
    fn chunks<'a>(
        &'a self,
        item: &Item,
        bytes: u64,
    ) -> impl Iterator<Item = RawEntry<'a>> + use<'a> {
        let path = std::sync::Arc::clone(&item.path);
        let first_chunk = item.first_chunk;
        let count = self.toc.chunks_of(bytes);
        (1..count).filter_map(move |number| {
            let place = self.chunk(first_chunk + number)?;
            Some(RawEntry {
                name: Cow::Owned(path.to_string()),
                kind: "chunk",
                offset: place.offset,
                inner_offset: place.inner,
                chunk_offset: number * self.chunk_bytes,
                chunk_size: if number + 1 < count {
                    self.chunk_bytes
                } else {
                    0
                },
                chunk_digest: Some(Text(place.digest)),
                ..RawEntry::default()
            })
        })
    }

    fn chunk(&self, number: u64) -> Option<&Place> {
        self.places.get(usize::try_from(number).ok()?)
    }

    fn place(&self, item: &Item, number: u64) -> Option<&Place> {
        self.chunk(item.first_chunk + number)
    }

    fn entry<'a>(&'a self, item: &'a Item, owners: &mut Owners<'a>) -> RawEntry<'a> {
        let mut raw = RawEntry {
            name: Cow::Borrowed(&item.path),
            modified: time::print(item.mtime),
            mode: item.mode.into(),
            uid: item.uid.into(),
            gid: item.gid.into(),
            user_name: owners.users.if_new(item.uid, item.user.as_deref()),
            group_name: owners.groups.if_new(item.gid, item.group.as_deref()),
            xattrs: (!item.xattrs.is_empty()).then_some(RawXattrs(&item.xattrs)),
            ..RawEntry::default()
        };
        let kind = match &item.kind {
            ItemKind::Directory => {
                // As archives have it; the root is a name too.
                let path = if item.path.is_empty() {
                    "."
                } else {
                    &item.path
                };
                raw.name = Cow::Owned(format!("{path}/"));
                "dir"
            }
            ItemKind::File { .. } => "reg",
            ItemKind::Symlink(target) => {
                raw.link_name = target;
                "symlink"
            }
            ItemKind::HardLink { inode, target } => {
                raw.link_name = self.toc.link_target(*inode, target);
                "hardlink"
            }
            ItemKind::CharDevice { major, minor } => {
                (raw.dev_major, raw.dev_minor) = ((*major).into(), (*minor).into());
                "char"
            }
            ItemKind::BlockDevice { major, minor } => {
                (raw.dev_major, raw.dev_minor) = ((*major).into(), (*minor).into());
                "block"
            }
            ItemKind::Fifo => "fifo",
        };
        raw.kind = kind;
        raw
    }
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(2))?;
        map.serialize_entry("version", &VERSION)?;
        map.serialize_entry("entries", &Entries(self))?;
        map.end()
    }
}

struct Entries<'a>(&'a Document<'a>);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let owners = RefCell::new(Owners::default());
        let items = self.0.order.iter();
        let items = items.filter_map(|index| self.0.toc.item(*index));
        let entries = items.flat_map(|item| self.0.entries(item, &owners));
        to.collect_seq(entries)
    }
}
