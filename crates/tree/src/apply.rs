//! Layers onto a tree: OCI image specification v1.1, "Image Layer Filesystem Changeset".

use std::collections::BTreeMap;
use std::collections::VecDeque;

use crate::entry::{Entry, EntryKind, Meta, Xattrs};
use crate::node::{Kind, Name, Node, NodeId, Tree};

/// The prefix of a whiteout's name.
const WHITEOUT: &[u8] = b".wh.";
/// The name that hides everything of lower layers in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names that aufs kept for itself and that say nothing about the image.
const AUFS: &[u8] = b".wh..wh.";

/// What a layer may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Inodes in the tree. 2^24 is twenty times the largest image we know; a node takes some 200 bytes.
    pub inodes_max: usize,
    /// Bytes of a path: `PATH_MAX` of Linux.
    pub path_bytes_max: usize,
    /// Bytes of a path's component: `NAME_MAX` of Linux and of EROFS.
    pub name_bytes_max: usize,
    /// Bytes of a symbolic link's target: `PATH_MAX` less the terminator.
    pub symlink_bytes_max: usize,
    /// Symbolic links followed on the way to a parent directory: what Linux follows.
    pub hops_max: usize,
    /// Bytes of all extended attributes of an inode, names included: what an inode's 16-bit count of
    /// 4-byte units can express, less headers.
    pub xattr_bytes_max: usize,
    /// Bytes of all names, links' targets and extended attributes in the tree, which are kept in
    /// memory. 1 GiB: an image of a million files has some 100 MB of them, labels included, while a
    /// small layer can decode to any number of large attributes.
    pub text_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inodes_max: 1 << 24,
            path_bytes_max: 4096,
            name_bytes_max: 255,
            symlink_bytes_max: 4095,
            hops_max: 40,
            xattr_bytes_max: 128 << 10,
            text_bytes_max: 1 << 30,
        }
    }
}

/// Why an entry can't be part of the tree. Paths are shown with bytes that aren't UTF-8 replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A path has `..` in it.
    #[error("entry {path:?} has a \"..\" component: a layer may not point outside of its root")]
    DotDot {
        /// The entry's path.
        path: String,
    },
    /// A path, name, link or attribute list is too long, or there are too many entries.
    #[error("entry {path:?}: {what} is {value}, the limit is {limit}")]
    TooLarge {
        /// The entry's path, cut off if it is the path that is too long.
        path: String,
        /// What is too large.
        what: &'static str,
        /// How large it is.
        value: usize,
        /// How large it may be.
        limit: usize,
    },
    /// A component on the way is a file.
    #[error("entry {path:?} lies below {parent:?}, which is not a directory")]
    NotADirectory {
        /// The entry's path.
        path: String,
        /// The component that is no directory.
        parent: String,
    },
    /// The root is said to be something else than a directory, or removed.
    #[error("entry {path:?} would replace the root directory")]
    Root {
        /// The entry's path.
        path: String,
    },
    /// A name holds a NUL byte, or nothing follows a whiteout's prefix.
    #[error("entry {path:?} has a name that no filesystem can hold")]
    Name {
        /// The entry's path.
        path: String,
    },
    /// Symbolic links lead round and round.
    #[error(
        "entry {path:?}: more than {hops_max} symbolic links on the way to its parent directory"
    )]
    Loop {
        /// The entry's path.
        path: String,
        /// How many are followed.
        hops_max: usize,
    },
    /// A directory of what lies below is meant, whose metadata the layer does not repeat.
    #[error(
        "entry {path:?} lies below {parent:?}, of which the layer has no entry: what that is in the layers \
         below is not known here"
    )]
    Implied {
        /// The entry's path.
        path: String,
        /// The component without an entry.
        parent: String,
    },
    /// A hard link's target is not there, or is a directory.
    #[error("hard link {path:?}: its target {target:?} {problem}")]
    HardLink {
        /// The entry's path.
        path: String,
        /// The target's path.
        target: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// As much of a path as an error message should show, in bytes.
const SHOWN_BYTES_MAX: usize = 256;

fn show(path: &[u8]) -> String {
    let shown = path.get(..SHOWN_BYTES_MAX).unwrap_or(path);
    String::from_utf8_lossy(shown).into_owned()
}

/// The components of a path without the empty ones and the dots.
fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
}

impl Tree {
    /// Begins the next layer: what is in the tree so far is "lower" to the entries applied from now on.
    pub fn begin_layer(&mut self) {
        self.layers = self.layers.saturating_add(1);
        self.books.stripped.clear();
    }

    /// How many layers were begun.
    #[must_use]
    pub fn layers(&self) -> u16 {
        self.layers
    }

    /// Applies the next entry of the current layer. Gives the node that the entry made or changed;
    /// `None` for whiteouts. Absolute paths count from the image's root; missing parent directories
    /// are made (0755, 0:0, time 0); symbolic links on the way are followed inside the root; what is
    /// there already is replaced, but a directory over a directory keeps its children. Symbolic links
    /// get mode 0777, whatever the entry says; of a hard link's metadata nothing is taken.
    ///
    /// # Errors
    /// See [`ApplyError`]. The tree stays usable, the entry had no effect but for parent directories.
    pub fn apply(&mut self, entry: Entry, limits: &Limits) -> Result<Option<NodeId>, ApplyError> {
        check_entry(&entry, self.nodes.len(), self.books.text_bytes, limits)?;
        let Some(name) = components(&entry.path).next_back().map(<[u8]>::to_vec) else {
            return self.apply_root(entry);
        };
        let parents = components(&entry.path).rev().skip(1);
        let parents: VecDeque<Vec<u8>> = parents.map(<[u8]>::to_vec).collect();
        if name.starts_with(WHITEOUT) || parents.iter().any(|parent| parent.starts_with(AUFS)) {
            self.apply_whiteout(&entry, &name, parents, limits)?;
            return Ok(None);
        }
        let parent = self.resolve(&entry.path, parents, limits, true)?;
        let Some(parent) = parent else {
            return Ok(None);
        };
        self.put(parent, name, entry, limits).map(Some)
    }

    /// As [`Tree::apply`], but whiteouts are names like others: for a tree that stands for one layer
    /// and is yet to be put on lower ones.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn apply_verbatim(
        &mut self,
        entry: Entry,
        limits: &Limits,
    ) -> Result<Option<NodeId>, ApplyError> {
        check_entry(&entry, self.nodes.len(), self.books.text_bytes, limits)?;
        let Some(name) = components(&entry.path).next_back().map(<[u8]>::to_vec) else {
            return self.apply_root(entry);
        };
        let parents = components(&entry.path).rev().skip(1);
        let parents = parents.map(<[u8]>::to_vec).collect();
        match self.resolve(&entry.path, parents, limits, true)? {
            Some(parent) => self.put(parent, name, entry, limits).map(Some),
            None => Ok(None),
        }
    }

    fn apply_root(&mut self, entry: Entry) -> Result<Option<NodeId>, ApplyError> {
        if entry.kind != EntryKind::Directory {
            return Err(ApplyError::Root {
                path: show(&entry.path),
            });
        }
        self.set_meta(Self::ROOT, entry.meta);
        Ok(Some(Self::ROOT))
    }

    fn apply_whiteout(
        &mut self,
        entry: &Entry,
        name: &[u8],
        parents: VecDeque<Vec<u8>>,
        limits: &Limits,
    ) -> Result<(), ApplyError> {
        let aufs = parents.iter().any(|parent| parent.starts_with(AUFS));
        if aufs || (name.starts_with(AUFS) && name != OPAQUE) {
            return Ok(());
        }
        // What it hides isn't there when its parent isn't; if others lie below, it may be with them.
        let is_on_others = self.books.is_on_others;
        let Some(parent) = self.resolve(&entry.path, parents, limits, is_on_others)? else {
            return Ok(());
        };
        if name == OPAQUE {
            if is_on_others && parent == Self::ROOT {
                // Overlayfs asks no root for that attribute.
                return Err(ApplyError::Root {
                    path: show(&entry.path),
                });
            }
            self.strip_lower(parent);
            self.hide_below(parent);
            return Ok(());
        }
        let hidden = &name[WHITEOUT.len()..];
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(ApplyError::Name {
                path: show(&entry.path),
            });
        }
        let found = self
            .node(parent)
            .children()
            .and_then(|children| children.get(hidden))
            .copied();
        if let Some(found) = found {
            if self.keep_after_strip(found) {
                self.hide_below(found.node);
                return Ok(());
            }
            self.remove(parent, hidden);
        }
        self.put_whiteout(parent, hidden, &entry.path, limits)
    }

    /// The directory that a path's parents lead to. Missing ones are made if `create`, else `None`.
    /// `parents` are in reverse, the first at the back.
    fn resolve(
        &mut self,
        path: &[u8],
        mut parents: VecDeque<Vec<u8>>,
        limits: &Limits,
        create: bool,
    ) -> Result<Option<NodeId>, ApplyError> {
        let mut trail = vec![Self::ROOT];
        let mut hops = 0;
        while let Some(name) = parents.pop_back() {
            if name == b".." {
                // Only a symbolic link's target has these; above the root is the root.
                if trail.len() > 1 {
                    trail.pop();
                }
                continue;
            }
            let at = trail.last().copied().unwrap_or(Self::ROOT);
            let found = self
                .node(at)
                .children()
                .and_then(|children| children.get(&*name));
            let Some(next) = found.map(|found| found.node) else {
                if !create {
                    return Ok(None);
                }
                if self.books.is_on_others {
                    return Err(ApplyError::Implied {
                        path: show(path),
                        parent: show(&name),
                    });
                }
                let meta = Meta {
                    mode: 0o755,
                    ..Meta::default()
                };
                let kind = Kind::Directory(BTreeMap::new());
                trail.push(self.insert(path, at, name, meta, kind, limits)?);
                continue;
            };
            match &self.node(next).kind {
                Kind::Directory(_) => trail.push(next),
                Kind::Symlink(target) => {
                    hops += 1;
                    if hops > limits.hops_max {
                        let hops_max = limits.hops_max;
                        return Err(ApplyError::Loop {
                            path: show(path),
                            hops_max,
                        });
                    }
                    parents.extend(components(target).rev().map(<[u8]>::to_vec));
                    if target.starts_with(b"/") {
                        trail.truncate(1);
                    }
                }
                _ if !create => return Ok(None),
                _ => {
                    let parent = show(&name);
                    return Err(ApplyError::NotADirectory {
                        path: show(path),
                        parent,
                    });
                }
            }
        }
        Ok(trail.last().copied())
    }

    fn put(
        &mut self,
        parent: NodeId,
        name: Vec<u8>,
        mut entry: Entry,
        limits: &Limits,
    ) -> Result<NodeId, ApplyError> {
        if matches!(entry.kind, EntryKind::Symlink(_)) {
            // Linux knows no other: unpackers can't set what an archive may say.
            entry.meta.mode = 0o777;
        }
        let there = self
            .node(parent)
            .children()
            .and_then(|children| children.get(&*name))
            .copied();
        let kind = match entry.kind {
            EntryKind::Directory => {
                if let Some(there) = there
                    && matches!(self.node(there.node).kind, Kind::Directory(_))
                {
                    self.set_meta(there.node, entry.meta);
                    let name = Name {
                        node: there.node,
                        layer: self.layers,
                    };
                    self.set_name(parent, &entry.path, name);
                    return Ok(there.node);
                }
                Kind::Directory(BTreeMap::new())
            }
            EntryKind::HardLink(target) => {
                return self.link(parent, name, &entry.path, &target, limits);
            }
            EntryKind::File { bytes, chunks } => Kind::File { bytes, chunks },
            EntryKind::Symlink(target) => Kind::Symlink(target),
            EntryKind::CharDevice { major, minor } => Kind::CharDevice { major, minor },
            EntryKind::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::Socket => Kind::Socket,
        };
        self.remove(parent, &name);
        let id = self.insert(&entry.path, parent, name, entry.meta, kind, limits)?;
        if there.is_some() {
            // What was no directory hid a directory below; the new one does so too.
            self.hide_below(id);
        }
        Ok(id)
    }

    fn set_meta(&mut self, id: NodeId, meta: Meta) {
        let old = std::mem::replace(&mut self.node_mut(id).meta, meta);
        let added = xattr_bytes(&self.node(id).meta);
        let text_bytes = self.books.text_bytes.saturating_sub(xattr_bytes(&old));
        self.books.text_bytes = text_bytes.saturating_add(added);
    }

    /// Lets the last component of `path` in `parent` stand for `name`.
    fn set_name(&mut self, parent: NodeId, path: &[u8], name: Name) {
        let Some(last) = components(path).next_back() else {
            return;
        };
        if let Kind::Directory(children) = &mut self.node_mut(parent).kind {
            children.insert(last.into(), name);
        }
    }

    fn link(
        &mut self,
        parent: NodeId,
        name: Vec<u8>,
        path: &[u8],
        target: &[u8],
        limits: &Limits,
    ) -> Result<NodeId, ApplyError> {
        let fail = |problem| ApplyError::HardLink {
            path: show(path),
            target: show(target),
            problem,
        };
        if components(target).any(|part| part == b"..") {
            return Err(fail("has a \"..\" component"));
        }
        let last = components(target)
            .next_back()
            .ok_or_else(|| fail("is the root directory"))?;
        let parents = components(target)
            .rev()
            .skip(1)
            .map(<[u8]>::to_vec)
            .collect();
        let found = self
            .resolve(path, parents, limits, false)?
            .and_then(|at| self.node(at).children()?.get(last).copied())
            .ok_or_else(|| fail("does not exist in this layer or a lower one"))?;
        if matches!(self.node(found.node).kind, Kind::Directory(_)) {
            return Err(fail("is a directory"));
        }
        if self.is_whiteout(found.node) {
            return Err(fail("does not exist in this layer or a lower one"));
        }
        let layer = self.layers;
        let there = self
            .node(parent)
            .children()
            .and_then(|children| children.get(&*name))
            .copied();
        if there.is_none_or(|there| there.node != found.node) {
            self.node_mut(found.node).names += 1;
            self.remove(parent, &name);
            self.books.text_bytes = self.books.text_bytes.saturating_add(name.len() as u64);
        }
        if let Kind::Directory(children) = &mut self.node_mut(parent).kind {
            children.insert(
                name.into(),
                Name {
                    node: found.node,
                    layer,
                },
            );
        }
        Ok(found.node)
    }

    pub(crate) fn insert(
        &mut self,
        path: &[u8],
        parent: NodeId,
        name: Vec<u8>,
        meta: Meta,
        kind: Kind,
        limits: &Limits,
    ) -> Result<NodeId, ApplyError> {
        let len = self.nodes.len();
        let index = u32::try_from(len).ok().filter(|_| len < limits.inodes_max);
        let Some(index) = index else {
            return Err(too_large(
                path,
                "the number of inodes",
                len + 1,
                limits.inodes_max,
            ));
        };
        let id = NodeId(index);
        let text_bytes = name.len() as u64 + target_bytes(&kind) + xattr_bytes(&meta);
        self.books.text_bytes = self.books.text_bytes.saturating_add(text_bytes);
        self.nodes.push(Node {
            meta,
            kind,
            names: 1,
        });
        let layer = self.layers;
        if let Kind::Directory(children) = &mut self.node_mut(parent).kind {
            children.insert(name.into(), Name { node: id, layer });
        }
        Ok(id)
    }

    /// Takes a name away, with all that is below it.
    fn remove(&mut self, parent: NodeId, name: &[u8]) {
        let Kind::Directory(children) = &mut self.node_mut(parent).kind else {
            return;
        };
        let Some(removed) = children.remove(name) else {
            return;
        };
        let mut text_bytes = name.len() as u64;
        let mut doomed = vec![removed.node];
        while let Some(id) = doomed.pop() {
            let node = self.node_mut(id);
            node.names = node.names.saturating_sub(1);
            if node.names > 0 {
                continue;
            }
            // The index stays taken, what is behind it is given back.
            text_bytes += target_bytes(&node.kind) + xattr_bytes(&node.meta);
            node.meta.xattrs = Xattrs::new();
            match &mut node.kind {
                Kind::Directory(children) => {
                    for (name, child) in std::mem::take(children) {
                        text_bytes += name.len() as u64;
                        doomed.push(child.node);
                    }
                }
                Kind::Symlink(target) => *target = Box::default(),
                _ => {}
            }
        }
        self.books.text_bytes = self.books.text_bytes.saturating_sub(text_bytes);
    }

    /// Takes away what lower layers brought below a directory.
    fn strip_lower(&mut self, directory: NodeId) {
        // Depth is bounded by the length of a path, but recursion is not needed: collect, then
        // decide from the deepest directory up.
        if !self.books.stripped.insert(directory) {
            return;
        }
        let mut order = vec![directory];
        let mut at = 0;
        while let Some(id) = order.get(at).copied() {
            at += 1;
            let children = self.node(id).children().into_iter().flatten();
            let directories = children.map(|(_, name)| name.node);
            let directories: Vec<NodeId> = directories
                .filter(|id| self.node(*id).children().is_some())
                .collect();
            // Each directory is looked at once a layer, however many whiteouts there are.
            let fresh = directories.into_iter();
            order.extend(fresh.filter(|id| self.books.stripped.insert(*id)));
        }
        for id in order.into_iter().rev() {
            let lower: Vec<Box<[u8]>> = self
                .node(id)
                .children()
                .into_iter()
                .flatten()
                .filter(|(_, name)| {
                    let holds_some = self
                        .node(name.node)
                        .children()
                        .is_some_and(|below| !below.is_empty());
                    name.layer < self.layers && !holds_some
                })
                .map(|(name, _)| name.clone())
                .collect();
            for name in lower {
                self.remove(id, &name);
            }
        }
    }

    /// Whether a name that a whiteout hides stays after all, because this layer brought it or
    /// something below it; what lower layers brought below it is taken away then.
    fn keep_after_strip(&mut self, name: Name) -> bool {
        if self.node(name.node).children().is_none() {
            return name.layer == self.layers;
        }
        self.strip_lower(name.node);
        let holds_some = self
            .node(name.node)
            .children()
            .is_some_and(|below| !below.is_empty());
        name.layer == self.layers || holds_some
    }
}

fn too_large(path: &[u8], what: &'static str, value: usize, limit: usize) -> ApplyError {
    ApplyError::TooLarge {
        path: show(path),
        what,
        value,
        limit,
    }
}

/// Bytes of extended attributes, names included.
fn xattr_bytes(meta: &Meta) -> u64 {
    let bytes = meta.xattrs.iter();
    bytes
        .map(|(name, value)| (name.len() + value.len()) as u64)
        .sum()
}

fn target_bytes(kind: &Kind) -> u64 {
    match kind {
        Kind::Symlink(target) => target.len() as u64,
        _ => 0,
    }
}

fn check_entry(
    entry: &Entry,
    inodes: usize,
    text_bytes: u64,
    limits: &Limits,
) -> Result<(), ApplyError> {
    let path = &*entry.path;
    let check = |what, value, limit| {
        if value > limit {
            Err(too_large(path, what, value, limit))
        } else {
            Ok(())
        }
    };
    check("the length of its path", path.len(), limits.path_bytes_max)?;
    for name in components(path) {
        if name == b".." {
            return Err(ApplyError::DotDot { path: show(path) });
        }
        if name.contains(&0) {
            return Err(ApplyError::Name { path: show(path) });
        }
        check("the length of a name", name.len(), limits.name_bytes_max)?;
    }
    // The path stands for its last name and for the parents that are made.
    let mut text_bytes = text_bytes.saturating_add(path.len() as u64);
    if let EntryKind::Symlink(target) | EntryKind::HardLink(target) = &entry.kind {
        check(
            "the length of its target",
            target.len(),
            limits.symlink_bytes_max,
        )?;
        text_bytes = text_bytes.saturating_add(target.len() as u64);
    }
    let xattr_bytes = xattr_bytes(&entry.meta);
    text_bytes = text_bytes.saturating_add(xattr_bytes);
    check(
        "the size of its extended attributes",
        usize::try_from(xattr_bytes).unwrap_or(usize::MAX),
        limits.xattr_bytes_max,
    )?;
    check(
        "the size of all names, targets and extended attributes",
        usize::try_from(text_bytes).unwrap_or(usize::MAX),
        usize::try_from(limits.text_bytes_max).unwrap_or(usize::MAX),
    )?;
    check("the number of inodes", inodes, limits.inodes_max)
}
