//! What the archive's entries say, and which of them are left at its end.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use draught_digest::Digest;
use draught_tar::Extra;
use draught_tree::{Entry, EntryKind, Meta, Xattrs};

use super::error::WriteError;
use super::names;
use crate::error::{show, show_bytes};
use crate::time;

/// An item's place in [`Toc::items`].
pub(super) type Index = u32;

/// About how many bytes of the table an entry takes besides its texts, digest of a chunk included.
const ENTRY_BYTES: u64 = 200;

#[derive(Debug)]
pub(super) enum ItemKind {
    Directory,
    File {
        bytes: u64,
    },
    Symlink(Box<str>),
    /// Another name of `inode`, or of what a lower layer has at `target`.
    HardLink {
        inode: Option<Index>,
        target: Box<str>,
    },
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// An entry.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) path: Arc<str>,
    pub(super) kind: ItemKind,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) user: Option<Arc<str>>,
    pub(super) group: Option<Arc<str>>,
    pub(super) xattrs: Xattrs,
    /// Of the whole file, if it has not exactly one chunk.
    pub(super) digest: Option<Box<Digest>>,
    /// The number of its first chunk in the layer.
    pub(super) first_chunk: u64,
    /// Whether a later entry took its name.
    pub(super) hidden: bool,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// It is an item.
    New(Index),
    /// It is a directory that was there before, and changed it.
    Again(Index),
    /// The format has that name for itself.
    Dropped,
}

/// How much there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct TocLimits {
    pub(super) chunk_bytes: u64,
    pub(super) entries_max: u64,
    pub(super) bytes_max: u64,
}

/// All entries of a layer.
#[derive(Debug)]
pub(super) struct Toc {
    pub(super) items: Vec<Item>,
    limits: TocLimits,
    /// What is there under each name.
    at: BTreeMap<Arc<str>, Index>,
    /// The last whiteout so far.
    whiteout: Option<Index>,
    /// Whether one came after entries that lie below what it hides.
    late_whiteout: bool,
    /// Where hard links to lower layers lead.
    lower: BTreeSet<Box<str>>,
    entries: u64,
    bytes: u64,
}

fn refuse(path: &str, problem: &'static str) -> WriteError {
    let path = show(path);
    WriteError::Inexpressible { path, problem }
}

fn text(bytes: &[u8]) -> Option<&str> {
    // A name that is not UTF-8 is left out: the number is what counts.
    str::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

/// The same text only once, as long as it is the same in entry after entry.
fn shared(text: Option<&str>, last: Option<&Arc<str>>) -> Option<Arc<str>> {
    let text = text?;
    Some(match last {
        Some(last) if **last == *text => Arc::clone(last),
        _ => text.into(),
    })
}

fn index(len: usize) -> Index {
    // `entries_max` is checked to be less before.
    Index::try_from(len).unwrap_or(Index::MAX)
}

impl Toc {
    pub(super) fn new(limits: TocLimits) -> Self {
        Self {
            items: Vec::new(),
            limits,
            at: BTreeMap::new(),
            whiteout: None,
            late_whiteout: false,
            lower: BTreeSet::new(),
            entries: 0,
            bytes: 0,
        }
    }

    pub(super) fn item(&self, index: Index) -> Option<&Item> {
        self.items.get(usize::try_from(index).ok()?)
    }

    pub(super) fn item_mut(&mut self, index: Index) -> Option<&mut Item> {
        self.items.get_mut(usize::try_from(index).ok()?)
    }

    /// What is at this path.
    pub(super) fn find(&self, path: &str) -> Option<Index> {
        self.at.get(path).copied()
    }

    /// Whether the order of entries means something that can't be kept when some are moved: hard links lead to
    /// what lower layers have, or a whiteout comes after entries that lie where it hides what is below.
    pub(super) fn is_fixed(&self) -> bool {
        self.late_whiteout || !self.lower.is_empty()
    }

    /// How many chunks a file of this size has.
    pub(super) fn chunks_of(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.limits.chunk_bytes)
    }

    /// A mark of the format's own, a file of `bytes`.
    pub(super) fn add_mark(&mut self, name: &str, bytes: u64) -> Index {
        let added = index(self.items.len());
        self.items.push(Item {
            path: name.into(),
            kind: ItemKind::File { bytes },
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            user: None,
            group: None,
            xattrs: Xattrs::new(),
            digest: None,
            first_chunk: 0,
            hidden: false,
        });
        added
    }

    /// Takes the archive's next entry.
    pub(super) fn add(&mut self, entry: Entry, extra: &Extra) -> Result<Added, WriteError> {
        let path = names::normalize(&entry.path, &entry.path)?;
        if names::is_reserved(&path) {
            return Ok(Added::Dropped);
        }
        let top = path.split('/').next().unwrap_or_default();
        if names::is_reserved(top) {
            return Err(refuse(
                &path,
                "it lies below a name that the format keeps for itself",
            ));
        }
        self.check_parents(&path, &path)?;
        if self.lower.contains(&*path) {
            let problem = "a hard link to what a lower layer has there comes before it";
            return Err(refuse(&path, problem));
        }
        let kind = self.kind(&path, entry.kind)?;
        if !matches!(kind, ItemKind::Directory) && self.lower_below(&path) {
            let problem =
                "it takes the place of a directory of lower layers that a hard link leads into";
            return Err(refuse(&path, problem));
        }
        self.count(&path, &kind, &entry.meta)?;
        let item = self.make(path.into(), kind, entry.meta, extra)?;
        self.place(item)
    }

    /// Whether hard links lead to what lower layers have below a path.
    fn lower_below(&self, path: &str) -> bool {
        // '0' is the character after the slash.
        let (from, to) = (format!("{path}/"), format!("{path}0"));
        let range = (Bound::Included(from.as_str()), Bound::Excluded(to.as_str()));
        self.lower.range::<str, _>(range).next().is_some()
    }

    /// Whether entries lie below a path.
    fn has_below(&self, path: &str) -> bool {
        let (from, to) = match path {
            "" => (String::new(), None),
            path => (format!("{path}/"), Some(format!("{path}0"))),
        };
        let to = to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let range = (Bound::Excluded(from.as_str()), to);
        self.at.range::<str, _>(range).next().is_some()
    }

    fn place(&mut self, item: Item) -> Result<Added, WriteError> {
        let is_directory = matches!(item.kind, ItemKind::Directory);
        if item.path.is_empty() && !is_directory {
            return Err(refuse("./", "the root is no directory"));
        }
        let there = self.find(&item.path);
        if let Some(there) = there
            && let Some(old) = self.item_mut(there)
        {
            if is_directory && matches!(old.kind, ItemKind::Directory) {
                *old = item;
                return Ok(Added::Again(there));
            }
            if is_directory {
                let problem = "it is a directory where an earlier entry of this layer was none, \
                    which hides what lower layers have in it";
                return Err(refuse(&item.path, problem));
            }
            if names::is_whiteout(&item.path) {
                // It says what is said already, and where it stands what lower layers have is hidden.
                return Ok(Added::Dropped);
            }
            self.hide(there)?;
        }
        if !is_directory {
            self.hide_below(&item.path)?;
        }
        let added = index(self.items.len());
        if names::is_whiteout(&item.path) {
            self.whiteout = Some(added);
            self.late_whiteout |= self.has_below(&names::hidden_by(&item.path));
        }
        self.at.insert(Arc::clone(&item.path), added);
        self.items.push(item);
        Ok(Added::New(added))
    }

    /// Hides what a later entry replaces.
    fn hide(&mut self, index: Index) -> Result<(), WriteError> {
        let between = self.whiteout.is_some_and(|whiteout| whiteout > index);
        let Some(item) = self.item_mut(index) else {
            return Ok(());
        };
        if between {
            // It would count as coming after that.
            let problem = "it is replaced later in this layer, and a whiteout comes in between";
            return Err(refuse(&item.path, problem));
        }
        item.hidden = true;
        Ok(())
    }

    /// Hides what is below a directory that is none any more.
    fn hide_below(&mut self, path: &str) -> Result<(), WriteError> {
        // '0' is the character after the slash.
        let (from, to) = (format!("{path}/"), format!("{path}0"));
        let range = (Bound::Included(from.as_str()), Bound::Excluded(to.as_str()));
        let below = self.at.range::<str, _>(range);
        let below: Vec<_> = below
            .map(|(path, index)| (Arc::clone(path), *index))
            .collect();
        for (path, index) in below {
            self.at.remove(&path);
            self.hide(index)?;
        }
        Ok(())
    }

    /// Refuses what lies below something that is no directory, in this layer. Unpackers follow symbolic
    /// links there; readers of the table do not.
    fn check_parents(&self, path: &str, of: &str) -> Result<(), WriteError> {
        // The nearest one that is there was checked when it came, and would be gone with its own.
        let nearest = names::parents(path).find_map(|parent| self.find(parent));
        let nearest = nearest.and_then(|nearest| self.item(nearest));
        if nearest.is_some_and(|item| !matches!(item.kind, ItemKind::Directory)) {
            let problem =
                "it, or a link's target, lies below something in this layer that is no directory";
            return Err(refuse(of, problem));
        }
        Ok(())
    }

    fn kind(&mut self, path: &str, kind: EntryKind) -> Result<ItemKind, WriteError> {
        Ok(match kind {
            EntryKind::Directory => ItemKind::Directory,
            EntryKind::File { bytes, .. } => ItemKind::File { bytes },
            EntryKind::Symlink(target) => {
                let target = str::from_utf8(&target);
                let target = target.map_err(|_| refuse(path, "its target is not UTF-8"))?;
                ItemKind::Symlink(target.into())
            }
            EntryKind::HardLink(target) => self.hard_link(path, &target)?,
            EntryKind::CharDevice { major, minor } => ItemKind::CharDevice { major, minor },
            EntryKind::BlockDevice { major, minor } => ItemKind::BlockDevice { major, minor },
            EntryKind::Fifo => ItemKind::Fifo,
            EntryKind::Socket => return Err(refuse(path, "it is a socket")),
        })
    }

    fn hard_link(&mut self, path: &str, target: &[u8]) -> Result<ItemKind, WriteError> {
        let target = names::normalize(target, path.as_bytes())?;
        if *target == *path {
            return Err(refuse(path, "it is a hard link to itself"));
        }
        let (inode, target) = match self.find(&target) {
            None => {
                self.check_parents(&target, path)?;
                self.lower.insert(target.as_str().into());
                (None, target.into())
            }
            Some(found) => match self.item(found).map(|item| &item.kind) {
                Some(ItemKind::Directory) | None => {
                    return Err(refuse(path, "it is a hard link to a directory"));
                }
                Some(ItemKind::HardLink { inode: None, .. })
                    if self.whiteout.is_some_and(|whiteout| whiteout > found) =>
                {
                    // That may have hidden what the other link leads to.
                    let problem = "it is a hard link to one that leads to a lower layer, and a whiteout comes \
                        in between";
                    return Err(refuse(path, problem));
                }
                Some(ItemKind::HardLink { inode, target }) => (*inode, target.clone()),
                Some(_) => (Some(found), target.into()),
            },
        };
        Ok(ItemKind::HardLink { inode, target })
    }

    /// Keeps within the limits.
    fn count(&mut self, path: &str, kind: &ItemKind, meta: &Meta) -> Result<(), WriteError> {
        let chunks = match kind {
            ItemKind::File { bytes } => self.chunks_of(*bytes).max(1),
            _ => 1,
        };
        let target = match kind {
            ItemKind::Symlink(target) | ItemKind::HardLink { target, .. } => target.len(),
            _ => 0,
        };
        let attributes = meta.xattrs.iter();
        let attributes: usize = attributes
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let texts = (path.len() + target + attributes) as u64;
        self.entries = self.entries.saturating_add(chunks);
        self.bytes = self.bytes.saturating_add(texts);
        self.bytes = self
            .bytes
            .saturating_add(chunks.saturating_mul(ENTRY_BYTES));
        for (what, value, limit) in [
            (
                "entries",
                self.entries,
                self.limits.entries_max.min(u32::MAX.into()),
            ),
            ("bytes", self.bytes, self.limits.bytes_max),
        ] {
            if value > limit {
                return Err(WriteError::TooLarge { what, value, limit });
            }
        }
        Ok(())
    }

    fn make(
        &self,
        path: Arc<str>,
        kind: ItemKind,
        meta: Meta,
        extra: &Extra,
    ) -> Result<Item, WriteError> {
        let mtime = (meta.mtime, meta.mtime_nsec);
        if time::print(mtime).is_none() {
            let problem = "its time of modification is not in the years 0 to 9999";
            return Err(refuse(&path, problem));
        }
        if let Some((name, _)) = meta
            .xattrs
            .iter()
            .find(|(name, _)| str::from_utf8(name).is_err())
        {
            return Err(WriteError::Inexpressible {
                path: format!("{}, attribute {}", show(&path), show_bytes(name)),
                problem: "the name of an extended attribute is not UTF-8",
            });
        }
        let last = self.items.last();
        let user = shared(text(&extra.user), last.and_then(|last| last.user.as_ref()));
        let group = shared(
            text(&extra.group),
            last.and_then(|last| last.group.as_ref()),
        );
        Ok(Item {
            path,
            kind,
            mode: meta.mode,
            uid: meta.uid,
            gid: meta.gid,
            mtime,
            user,
            group,
            xattrs: meta.xattrs,
            digest: None,
            first_chunk: 0,
            hidden: false,
        })
    }

    /// Called after the last entry: what lost its name and has others gets the first of those.
    ///
    /// The entry stays where it is, for entries are in the order of what is stored. So its new directory must have
    /// come before it: what lower layers have there may be no directory until then.
    pub(super) fn settle(&mut self) -> Result<(), WriteError> {
        let mut heirs: BTreeMap<Index, Index> = BTreeMap::new();
        for (at, item) in self.items.iter().enumerate() {
            if let ItemKind::HardLink {
                inode: Some(inode), ..
            } = item.kind
                && !item.hidden
                && self.item(inode).is_some_and(|inode| inode.hidden)
            {
                heirs.entry(inode).or_insert(index(at));
            }
        }
        for (inode, heir) in heirs {
            let Some(heir) = self.item_mut(heir) else {
                continue;
            };
            heir.hidden = true;
            let path = Arc::clone(&heir.path);
            let parents = || names::parents(&path).filter_map(|parent| self.find(parent));
            if parents().any(|parent| parent > inode) {
                let problem = "the file that it is a hard link to is replaced later in this layer, and its \
                    directory comes in between";
                return Err(refuse(&path, problem));
            }
            self.at.insert(Arc::clone(&path), inode);
            if let Some(inode) = self.item_mut(inode) {
                inode.path = path;
                inode.hidden = false;
            }
        }
        Ok(())
    }

    /// Where a hard link leads.
    pub(super) fn link_target<'a>(&'a self, inode: Option<Index>, target: &'a str) -> &'a str {
        let inode = inode.and_then(|inode| self.item(inode));
        inode.map_or(target, |inode| &inode.path)
    }
}
