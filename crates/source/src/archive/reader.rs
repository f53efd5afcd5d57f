//! Where each file of an archive lies.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use draught_digest::Digest;
use draught_tar::{Limits, Reader};
use draught_tree::EntryKind;

use super::unpack::{self, Limit};
use crate::error::SourceError;
use crate::local::LocalBlob;

/// Files in an archive: three per layer, and some for the whole.
const ENTRIES_MAX: usize = 100_000;

/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;

/// Links followed from a layer to its data.
const LINKS_MAX: usize = 8;

/// What is at a path.
#[derive(Debug)]
enum Place {
    File { offset: u64, bytes: u64 },
    Link(Vec<u8>),
}

/// An open archive and where its files lie.
#[derive(Debug)]
pub(super) struct Files {
    file: Arc<std::fs::File>,
    places: BTreeMap<Vec<u8>, Place>,
}

impl Files {
    /// Reads an archive's headers. A compressed one is decompressed first.
    pub(super) fn open(path: &Path, scratch_dir: &Path) -> Result<Self, SourceError> {
        let wrong = |reason: String| SourceError::Format {
            path: path.to_owned(),
            expected: "a docker archive",
            reason,
        };
        let file = unpack::open(path, scratch_dir, Limit::default())?;
        let input = BufReader::with_capacity(READ_BYTES, file.try_clone()?);
        let mut reader = Reader::new(input, Limits::default());
        let mut places = BTreeMap::new();
        loop {
            let entry = reader
                .next_entry()
                .map_err(|error| wrong(describe(&error)))?;
            let Some(entry) = entry else { break };
            if places.len() >= ENTRIES_MAX {
                return Err(wrong(format!("it has more than {ENTRIES_MAX} files")));
            }
            let name = normalise(&entry.path);
            let place = match entry.kind {
                EntryKind::File { bytes, .. } => Place::File {
                    offset: reader.position(),
                    bytes,
                },
                EntryKind::Symlink(target) => Place::Link(beside(&name, &target)),
                EntryKind::HardLink(target) => Place::Link(normalise(&target)),
                _ => continue,
            };
            places.insert(name, place);
        }
        Ok(Self {
            file: Arc::new(file),
            places,
        })
    }

    /// The file at a path, through links.
    pub(super) fn find(&self, path: &str) -> Option<LocalBlob> {
        let mut name = normalise(path.as_bytes());
        for _ in 0..LINKS_MAX {
            match self.places.get(&name)? {
                Place::Link(target) => name.clone_from(target),
                Place::File { offset, bytes } => {
                    return Some(LocalBlob::of_file(self.file.clone(), *offset, *bytes));
                }
            }
        }
        None
    }

    /// The files that are blobs of a layout, by what their names say they are.
    pub(super) fn blobs(&self) -> BTreeMap<Digest, LocalBlob> {
        let digest = |name: &[u8]| {
            let (algorithm, hex) = std::str::from_utf8(name)
                .ok()?
                .strip_prefix("blobs/")?
                .split_once('/')?;
            format!("{algorithm}:{hex}").parse::<Digest>().ok()
        };
        let named = self.places.keys();
        named
            .filter_map(|name| {
                let blob = self.find(std::str::from_utf8(name).ok()?)?;
                Some((digest(name)?, blob))
            })
            .collect()
    }
}

/// An error and its causes in one text.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A path without what means nothing.
fn normalise(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// What a symbolic link at `name` points to.
fn beside(name: &[u8], target: &[u8]) -> Vec<u8> {
    let mut path: Vec<u8> = name.to_vec();
    path.extend_from_slice(b"/../");
    path.extend_from_slice(target);
    normalise(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_seen_from_where_they_are() {
        assert_eq!(normalise(b"./a//b/../c/"), b"a/c");
        assert_eq!(normalise(b"../../a"), b"a");
        assert_eq!(beside(b"x/layer.tar", b"../y/layer.tar"), b"y/layer.tar");
    }
}
