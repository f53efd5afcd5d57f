//! From the end of a blob to its table of contents: what has to be read, in two steps at most.

use std::ops::Range;

use draught_digest::Digest;
use draught_tree::Tree;

use crate::apply::{self, Applied, Layer};
use crate::document;
use crate::error::ReadError;
use crate::footer::Footer;

/// How much of a blob's end is asked for first, in bytes. Tables of some thousand files are within, footer
/// included: one request for most layers, and not more than a round trip costs for the others.
pub const TAIL_BYTES: u64 = 128 << 10;

/// What a layer may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Stored bytes of the table of contents: a million files have some 60 MB.
    pub toc_stored_bytes_max: u64,
    /// Decoded bytes of it, which are kept in memory while it is read: a million files have some 350 MB.
    pub toc_bytes_max: u64,
    /// Entries of it, chunks included.
    pub entries_max: u64,
    /// Decoded bytes of a member up to the end of its last chunk. Whoever fills holds whole extents in
    /// memory: no more than this is taken there.
    pub extent_bytes_max: u32,
    /// What the tree may hold.
    pub tree: draught_tree::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            toc_stored_bytes_max: 128 << 20,
            toc_bytes_max: 1 << 30,
            entries_max: 1 << 23,
            extent_bytes_max: 32 << 20,
            tree: draught_tree::Limits::default(),
        }
    }
}

/// A layer that is being read: as long as it [`needs`](Self::needs) a range, [`give`](Self::give) it, then
/// [`apply`](Self::apply) it.
#[derive(Debug)]
pub struct Reader {
    blob: Digest,
    stored_bytes: u64,
    toc_digest: Digest,
    limits: Limits,
    /// Where the bytes begin that are there; the end of the blob, when none are.
    start: u64,
    bytes: Vec<u8>,
    footer: Option<Footer>,
}

impl Reader {
    /// Begins with what the manifest says: the blob's digest and size, and the digest of its table.
    #[must_use]
    pub fn new(blob: Digest, stored_bytes: u64, toc_digest: Digest, limits: &Limits) -> Self {
        Self {
            blob,
            stored_bytes,
            toc_digest,
            limits: *limits,
            start: stored_bytes,
            bytes: Vec::new(),
            footer: None,
        }
    }

    /// The blob.
    #[must_use]
    pub fn blob(&self) -> Digest {
        self.blob
    }

    /// How many bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap_or(u64::MAX)
    }

    /// Which range of the blob is needed next; `None` when everything is there.
    #[must_use]
    pub fn needs(&self) -> Option<Range<u64>> {
        match &self.footer {
            None => Some(self.stored_bytes.saturating_sub(TAIL_BYTES)..self.stored_bytes),
            Some(footer) => {
                (footer.toc_offset < self.start).then_some(footer.toc_offset..self.start)
            }
        }
    }

    /// Takes what was needed.
    ///
    /// # Errors
    /// [`ReadError::NotAsked`], and if the layer does not end in a footer that makes sense.
    pub fn give(&mut self, start: u64, bytes: &[u8]) -> Result<(), ReadError> {
        let end = u64::try_from(bytes.len()).ok();
        let end = end.and_then(|len| start.checked_add(len));
        let asked = self.needs().filter(|need| Some(need.end) == end);
        if asked.is_none_or(|need| need.start != start) {
            let bytes = bytes.len();
            return Err(ReadError::NotAsked { start, bytes });
        }
        if self.footer.is_none() {
            let footer = Footer::parse(bytes)?;
            self.check(&footer)?;
            self.footer = Some(footer);
        }
        self.bytes.splice(..0, bytes.iter().copied());
        self.start = start;
        Ok(())
    }

    fn check(&self, footer: &Footer) -> Result<(), ReadError> {
        let end = self.stored_bytes.saturating_sub(footer.bytes);
        if footer.toc_offset >= end {
            return Err(ReadError::TocOffset {
                offset: footer.toc_offset,
                bytes: self.stored_bytes,
            });
        }
        let (value, limit) = (end - footer.toc_offset, self.limits.toc_stored_bytes_max);
        if value > limit {
            let what = "stored bytes of its table of contents";
            return Err(ReadError::TooLarge { what, value, limit });
        }
        Ok(())
    }

    /// Puts the layer onto a tree that holds the lower ones.
    ///
    /// Chunks of files that upper layers hide stay in the map until
    /// [`Tree::drop_unused_chunks`] is called, once, after the last layer.
    ///
    /// # Errors
    /// See [`ReadError`]. The tree is of no use then.
    pub fn apply(self, tree: &mut Tree) -> Result<Applied, ReadError> {
        let footer = self.footer.ok_or(ReadError::Incomplete)?;
        let index = |at: u64| usize::try_from(at.checked_sub(self.start)?).ok();
        let end = self.stored_bytes.saturating_sub(footer.bytes);
        let stored = index(footer.toc_offset)
            .zip(index(end))
            .and_then(|(start, end)| self.bytes.get(start..end))
            .ok_or(ReadError::Incomplete)?;
        let json = document::unpack(stored, &self.toc_digest, self.limits.toc_bytes_max)?;
        let toc_stored_bytes = end.saturating_sub(footer.toc_offset);
        drop(self.bytes);
        let layer = Layer {
            blob: self.blob,
            stored_bytes: self.stored_bytes,
            toc_offset: footer.toc_offset,
            limits: self.limits,
        };
        let applied = apply::apply(&layer, &json, tree)?;
        Ok(Applied {
            toc_stored_bytes,
            ..applied
        })
    }
}
