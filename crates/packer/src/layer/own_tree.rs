//! The tree of a layer by itself, for the bootstrap that goes into its blob.

use draught_tree::{Entry, EntryKind, Kind, Limits, NodeId, Tree};

/// What one layer says, whiteouts as plain names. A layer that can't stand by itself has none: its
/// entries make sense on the lower layers only.
#[derive(Debug)]
pub(crate) struct OwnTree(Option<Tree>);

impl OwnTree {
    /// An empty one, or none at all.
    pub(crate) fn new(wanted: bool) -> Self {
        Self(wanted.then(|| {
            let mut tree = Tree::new();
            tree.begin_layer();
            tree
        }))
    }

    /// Whether entries have to be applied to it.
    pub(crate) fn wants_entries(&self) -> bool {
        self.0.is_some()
    }

    /// The tree, if the layer can stand by itself.
    pub(crate) fn into_tree(self) -> Option<Tree> {
        self.0
    }

    /// Applies an entry that became `node` of the image's tree. A hard link to a file of a lower layer
    /// becomes a copy of that file, whose chunks are those of the lower blob.
    pub(crate) fn apply(
        &mut self,
        mut entry: Entry,
        image: &Tree,
        node: Option<NodeId>,
        limits: &Limits,
    ) {
        let Some(tree) = &mut self.0 else {
            return;
        };
        let EntryKind::HardLink(_) = &entry.kind else {
            if tree.apply_verbatim(entry, limits).is_err() {
                self.0 = None;
            }
            return;
        };
        if tree.apply_verbatim(entry.clone(), limits).is_ok() {
            return;
        }
        if let Some(linked) = node {
            let node = image.node(linked);
            entry.meta = node.meta.clone();
            entry.kind = kind_of(&node.kind);
        }
        if tree.apply_verbatim(entry, limits).is_err() {
            self.0 = None;
        }
    }
}

pub(crate) fn kind_of(kind: &Kind) -> EntryKind {
    match kind {
        Kind::Directory(_) => EntryKind::Directory,
        Kind::File { bytes, chunks } => EntryKind::File {
            bytes: *bytes,
            chunks: chunks.clone(),
        },
        Kind::Symlink(target) => EntryKind::Symlink(target.clone()),
        Kind::CharDevice { major, minor } => EntryKind::CharDevice {
            major: *major,
            minor: *minor,
        },
        Kind::BlockDevice { major, minor } => EntryKind::BlockDevice {
            major: *major,
            minor: *minor,
        },
        Kind::Fifo => EntryKind::Fifo,
        Kind::Socket => EntryKind::Socket,
    }
}
