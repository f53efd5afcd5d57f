//! Trees that others lie below, and several trees in one.
//!
//! Layers of an image that somebody else unpacks can lie between those of a tree. Then there are several trees,
//! which overlayfs stacks: what hides something of the layers below has to be said in its words, a character device
//! 0:0 for a name, and an attribute for a directory (Linux: `Documentation/filesystems/overlayfs.rst`).

use std::collections::{BTreeMap, HashMap};

use draught_digest::Digest;

use crate::apply::{ApplyError, Limits};
use crate::chunk::{BlobId, ChunkId, ExtentId};
use crate::entry::Meta;
use crate::node::{Kind, Name, NodeId, Tree};
use crate::offset::DeviceOffset;

/// The attribute of a directory that hides what is below it.
const OPAQUE_XATTR: &[u8] = b"trusted.overlay.opaque";
/// Its value.
const OPAQUE_VALUE: &[u8] = b"y";

impl Tree {
    /// A tree for layers that lie on others, which it does not know. What they hide of those stays in it;
    /// [`Tree::mark_hiding`] is to be called after the last layer.
    ///
    /// An entry whose parent directory has none is refused: that directory is one of those below, and what it is
    /// like is not known.
    #[must_use]
    pub fn on_others() -> Self {
        let mut tree = Self::new();
        tree.books.is_on_others = true;
        tree
    }

    /// Notes that a directory hides what is below it.
    pub(crate) fn hide_below(&mut self, directory: NodeId) {
        if self.books.is_on_others && self.node(directory).children().is_some() {
            self.books.hiding.insert(directory);
        }
    }

    /// Whether a node stands for a hidden name.
    pub(crate) fn is_whiteout(&self, node: NodeId) -> bool {
        self.books.whiteouts.contains(&node)
    }

    /// Lets a name be hidden.
    pub(crate) fn put_whiteout(
        &mut self,
        parent: NodeId,
        name: &[u8],
        path: &[u8],
        limits: &Limits,
    ) -> Result<(), ApplyError> {
        // A directory that hides everything below hides this too.
        if !self.books.is_on_others || self.books.hiding.contains(&parent) {
            return Ok(());
        }
        let kind = Kind::CharDevice { major: 0, minor: 0 };
        let id = self.insert(path, parent, name.to_vec(), Meta::default(), kind, limits)?;
        self.books.whiteouts.insert(id);
        Ok(())
    }

    /// Gives directories that hide what is below them the attribute that says so.
    pub fn mark_hiding(&mut self) {
        for id in std::mem::take(&mut self.books.hiding) {
            let xattrs = &mut self.node_mut(id).meta.xattrs;
            xattrs.retain(|(name, _)| **name != *OPAQUE_XATTR);
            xattrs.push((OPAQUE_XATTR.into(), OPAQUE_VALUE.into()));
            xattrs.sort();
        }
    }

    /// Several trees as directories of one: `0`, `1`, … `None` if together they have more nodes, blobs, extents or
    /// chunks than can be numbered. Also gives, for each tree, how much was added to the numbers of its nodes.
    #[must_use]
    pub fn beside(trees: Vec<Self>) -> Option<(Self, Vec<u32>)> {
        let mut all = Self::new();
        let mut added = Vec::new();
        for (index, tree) in trees.into_iter().enumerate() {
            let node = u32::try_from(all.nodes.len()).ok()?;
            let chunk = all.take_map(&tree)?;
            let shift = |id: NodeId| id.0.checked_add(node).map(NodeId);
            for mut one in tree.nodes {
                match &mut one.kind {
                    Kind::Directory(children) => {
                        for name in children.values_mut() {
                            name.node = shift(name.node)?;
                        }
                    }
                    Kind::File { chunks, .. } => {
                        for id in chunks {
                            *id = ChunkId(id.0.checked_add(chunk)?);
                        }
                    }
                    _ => {}
                }
                all.nodes.push(one);
            }
            u32::try_from(all.nodes.len()).ok()?;
            let name = Name {
                node: NodeId(node),
                layer: 0,
            };
            if let Kind::Directory(children) = &mut all.node_mut(Self::ROOT).kind {
                children.insert(index.to_string().into_bytes().into(), name);
            }
            all.layers = all.layers.saturating_add(tree.layers);
            added.push(node);
        }
        Some((all, added))
    }

    /// Takes another tree's map behind its own; gives how much was added to the numbers of chunks.
    fn take_map(&mut self, other: &Self) -> Option<u32> {
        let by_digest = self.map.blobs.iter().map(|blob| blob.digest);
        let by_digest: HashMap<Digest, usize> = by_digest.zip(0..).collect();
        // For each of the other's blobs: which it is here, and where its places begin.
        let mut blobs: BTreeMap<BlobId, (BlobId, u64)> = BTreeMap::new();
        for (index, blob) in (0..).zip(&other.map.blobs) {
            let here = match by_digest.get(&blob.digest) {
                Some(known) => {
                    let id = BlobId(u32::try_from(*known).ok()?);
                    let known = self.map.blobs.get_mut(*known)?;
                    let begin = known.device_bytes;
                    known.device_bytes = begin.checked_add(blob.device_bytes)?;
                    (id, begin)
                }
                None => (self.map.push_blob(blob.clone())?, 0),
            };
            blobs.insert(BlobId(index), here);
        }
        let extent_base = u32::try_from(self.map.extents.len()).ok()?;
        let chunk_base = u32::try_from(self.map.chunks.len()).ok()?;
        let mut begins = Vec::with_capacity(other.map.extents.len());
        for extent in &other.map.extents {
            let (blob, begin) = *blobs.get(&extent.blob)?;
            let mut extent = extent.clone();
            extent.blob = blob;
            begins.push(begin);
            self.map.push_extent(extent)?;
        }
        for chunk in &other.map.chunks {
            let begin = *begins.get(chunk.extent.index())?;
            let mut chunk = chunk.clone();
            chunk.place = DeviceOffset(chunk.place.0.checked_add(begin)?);
            chunk.extent = ExtentId(chunk.extent.0.checked_add(extent_base)?);
            self.map.push_chunk(chunk)?;
        }
        Some(chunk_base)
    }
}
