//! Comparing trees: what a directory holds with what the model says, fact by fact.
//!
//! [`snapshot_dir`] describes a directory, [`snapshot_tree`] a tree, [`Applied`] builds a tree from
//! the layers of an image; [`diff`] says in words how two of them differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

use anyhow::Context as _;
use draught_digest::{Algorithm, Digest, Hasher};
use draught_tar::{Data, Reader};
use draught_tree::{NodeId, Tree};

pub use crate::facts::{Facts as Attributes, FactsOfTree as Snapshot};

/// The attributes of everything in a directory; the directory itself is `/`. Of directories, size
/// and link count are left out.
///
/// # Panics
///
/// If something in it can't be read.
#[must_use]
pub fn snapshot_dir(root: &Path) -> Snapshot {
    crate::facts::of_directory(root)
}

/// The attributes of everything in a tree; `content` gives the SHA-256 of a file's content.
///
/// # Panics
///
/// If `content` does.
#[must_use]
pub fn snapshot_tree(tree: &Tree, content: &dyn Fn(NodeId) -> Digest) -> Snapshot {
    crate::facts::of_tree_with(tree, content)
}

/// How `got` differs from `expected`: a line for every path that only one has, and for every
/// attribute that differs.
#[must_use]
pub fn diff(got: &Snapshot, expected: &Snapshot) -> Vec<String> {
    let paths: BTreeSet<&Vec<u8>> = got.keys().chain(expected.keys()).collect();
    let mut lines = Vec::new();
    for path in paths {
        let name = path.escape_ascii();
        match (got.get(path), expected.get(path)) {
            (Some(got), Some(expected)) => diff_attributes(&name, got, expected, &mut lines),
            (Some(got), None) => lines.push(format!("{name}: should not be there: {got:?}")),
            (None, Some(expected)) => lines.push(format!("{name}: is missing: {expected:?}")),
            (None, None) => {}
        }
    }
    lines
}

fn diff_attributes(
    name: &impl std::fmt::Display,
    got: &Attributes,
    expected: &Attributes,
    lines: &mut Vec<String>,
) {
    let mut check = |what: &str, got: String, expected: String| {
        if got != expected {
            lines.push(format!("{name}: {what} is {got}, should be {expected}"));
        }
    };
    let hex = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let xattrs = |attributes: &Attributes| {
        let mut text = String::new();
        for (name, value) in &attributes.xattrs {
            write!(text, "{}={} ", hex(name), hex(value)).unwrap();
        }
        text
    };
    // Names every field: a new one can't be forgotten.
    let Attributes {
        mode,
        uid,
        gid,
        bytes,
        mtime,
        links,
        device,
        target,
        xattrs: _,
        content,
        first_name,
    } = got;
    check("mode", format!("{mode:o}"), format!("{:o}", expected.mode));
    check(
        "owner",
        format!("{uid}:{gid}"),
        format!("{}:{}", expected.uid, expected.gid),
    );
    check("size", bytes.to_string(), expected.bytes.to_string());
    check(
        "mtime",
        format!("{mtime:?}"),
        format!("{:?}", expected.mtime),
    );
    check("link count", links.to_string(), expected.links.to_string());
    check(
        "device",
        format!("{device:?}"),
        format!("{:?}", expected.device),
    );
    check("target", hex(target), hex(&expected.target));
    check("xattrs", xattrs(got), xattrs(expected));
    check(
        "content",
        format!("{content:?}"),
        format!("{:?}", expected.content),
    );
    check("first name", hex(first_name), hex(&expected.first_name));
}

/// Fails with all differences.
///
/// # Panics
///
/// If there are any.
#[track_caller]
pub fn assert_same(got: &Snapshot, expected: &Snapshot) {
    let lines = diff(got, expected);
    assert!(
        lines.is_empty(),
        "{} differences:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

/// Layers as they are applied to a tree, with the digests of the files' content.
#[derive(Debug, Default)]
pub struct Applied {
    /// The tree; its files have no chunks.
    pub tree: Tree,
    contents: BTreeMap<NodeId, Digest>,
}

impl Applied {
    /// Applies a layer: a tar archive that is not compressed.
    ///
    /// # Errors
    ///
    /// If it can't be read, or an entry can't be applied.
    pub fn layer(&mut self, archive: impl Read) -> anyhow::Result<()> {
        let mut reader = Reader::new(archive, draught_tar::Limits::default());
        self.tree.begin_layer();
        while let Some(entry) = reader.next_entry()? {
            let path = entry.path.escape_ascii().to_string();
            let is_file = matches!(entry.kind, draught_tree::EntryKind::File { .. });
            let node = self
                .tree
                .apply(entry, &draught_tree::Limits::default())
                .with_context(|| format!("applying {path}"))?;
            if let Some(node) = node.filter(|_| is_file) {
                self.contents.insert(node, digest(&mut reader)?);
            }
        }
        Ok(())
    }

    /// What is in the tree.
    ///
    /// # Panics
    ///
    /// If the tree has a file that no layer brought.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        snapshot_tree(&self.tree, &|id| self.contents[&id])
    }
}

fn digest<R: Read>(reader: &mut Reader<R>) -> anyhow::Result<Digest> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut hasher = Hasher::new(Algorithm::Sha256);
    loop {
        match reader.next_data(ZEROS.len())? {
            Data::Bytes(bytes) => hasher.update(bytes),
            Data::Hole(bytes) => hasher.update(&ZEROS[..bytes]),
            Data::End => return Ok(hasher.finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scratch;

    #[test]
    fn every_difference_has_a_line() {
        let scratch = Scratch::new();
        for dir in ["a", "b"] {
            let dir = scratch.dir(dir);
            fs_err::write(dir.join("file"), dir.as_os_str().as_encoded_bytes()).unwrap();
        }
        fs_err::write(scratch.join("a/more"), b"").unwrap();
        let a = snapshot_dir(&scratch.join("a"));
        let b = snapshot_dir(&scratch.join("b"));
        assert_eq!(diff(&a, &a), [""; 0]);
        let lines = diff(&a, &b).join("\n");
        assert!(lines.contains("/file: content is"), "{lines}");
        assert!(lines.contains("/more: should not be there"), "{lines}");
        let lines = diff(&b, &a).join("\n");
        assert!(lines.contains("/more: is missing"), "{lines}");
    }
}
