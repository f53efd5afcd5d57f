//! What the tests share.

use std::io::Read;

use draught_tree::{Entry, EntryKind, Meta};

use crate::{Limits, Reader, TarError};

/// An entry and, if it is a file, its content.
pub(super) type Item = (Entry, Vec<u8>);

pub(super) fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: path.as_bytes().into(),
        meta: Meta {
            mode: 0o644,
            ..Meta::default()
        },
        kind,
    }
}

pub(super) fn file(path: &str, bytes: u64) -> Entry {
    let chunks = Box::default();
    entry(path, EntryKind::File { bytes, chunks })
}

/// Everything in an archive.
pub(super) fn items(archive: &[u8], limits: Limits) -> Result<Vec<Item>, TarError> {
    let mut reader = Reader::new(archive, limits);
    let mut items = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        let mut buffer = [0; 1000];
        loop {
            match reader.read_data(&mut buffer)? {
                0 => break,
                bytes => content.extend_from_slice(&buffer[..bytes]),
            }
        }
        items.push((entry, content));
    }
    Ok(items)
}

/// The only entry of an archive.
pub(super) fn only(archive: &[u8]) -> Item {
    let mut items = items(archive, Limits::default()).unwrap();
    assert_eq!(items.len(), 1, "{items:?}");
    items.remove(0)
}

/// Gives what it has in pieces of uneven sizes.
pub(super) struct Dribble<'a> {
    pub(super) left: &'a [u8],
    pub(super) step: usize,
}

impl Read for Dribble<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.step = self.step * 7 % 1021 + 1;
        let bytes = self.step.min(out.len()).min(self.left.len());
        let (head, left) = self.left.split_at(bytes);
        out[..bytes].copy_from_slice(head);
        self.left = left;
        Ok(bytes)
    }
}
