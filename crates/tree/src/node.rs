//! Nodes and the arena that holds them.

use std::collections::{BTreeMap, BTreeSet};

use crate::chunk::{ChunkId, ChunkMap};
use crate::entry::Meta;

/// Index of a [`Node`] in its [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The index as a `usize`.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a name in a directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// The inode.
    pub node: NodeId,
    /// The layer that brought this name, counted from 1, the lowest; 0 when no layer did.
    pub layer: u16,
}

/// What a node is, with what only that kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory: names in byte order, without `.` and `..`.
    Directory(BTreeMap<Box<[u8]>, Name>),
    /// A regular file.
    File {
        /// Size in bytes.
        bytes: u64,
        /// Its content in order; see [`crate::EntryKind::File`].
        chunks: Box<[ChunkId]>,
    },
    /// A symbolic link.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// An inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Mode, owner, times and extended attributes.
    pub meta: Meta,
    /// What it is.
    pub kind: Kind,
    /// How many names it has; for directories always 1. Zero: removed, not part of the tree any more.
    pub names: u32,
}

impl Node {
    /// The children, if it is a directory.
    #[must_use]
    pub fn children(&self) -> Option<&BTreeMap<Box<[u8]>, Name>> {
        match &self.kind {
            Kind::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// File type and permission bits as `st_mode` has them.
    #[must_use]
    pub fn st_mode(&self) -> u32 {
        let file_type = match self.kind {
            Kind::Fifo => 0o010_000,
            Kind::CharDevice { .. } => 0o020_000,
            Kind::Directory(_) => 0o040_000,
            Kind::BlockDevice { .. } => 0o060_000,
            Kind::File { .. } => 0o100_000,
            Kind::Symlink(_) => 0o120_000,
            Kind::Socket => 0o140_000,
        };
        file_type | u32::from(self.meta.mode)
    }
}

/// An image's files and the map of their content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    pub(crate) nodes: Vec<Node>,
    pub(crate) layers: u16,
    pub(crate) books: Books,
    /// Where the content of the files lies.
    pub map: ChunkMap,
}

/// What is counted while entries are applied.
#[derive(Debug, Clone, Default)]
pub(crate) struct Books {
    /// Bytes of the names, links' targets and extended attributes in the tree.
    pub(crate) text_bytes: u64,
    /// The directories that hold nothing of lower layers any more: none of it can come back before
    /// the next layer begins.
    pub(crate) stripped: BTreeSet<NodeId>,
    /// Whether other trees lie below this one.
    pub(crate) is_on_others: bool,
    /// Directories that hide what is below them.
    pub(crate) hiding: BTreeSet<NodeId>,
    /// What stands for names that are hidden.
    pub(crate) whiteouts: BTreeSet<NodeId>,
}

/// Trees that hold the same are equal, however they came to be.
impl PartialEq for Books {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Books {}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// The root directory.
    pub const ROOT: NodeId = NodeId(0);

    /// A tree that has nothing but a root directory (mode 0755, owned by 0:0, time 0).
    #[must_use]
    pub fn new() -> Self {
        let root = Node {
            meta: Meta {
                mode: 0o755,
                ..Meta::default()
            },
            kind: Kind::Directory(BTreeMap::new()),
            names: 1,
        };
        Self {
            nodes: vec![root],
            layers: 0,
            books: Books::default(),
            map: ChunkMap::default(),
        }
    }

    /// The node of that index.
    ///
    /// # Panics
    /// If the index is not from this tree: a bug of the caller.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The node of that index, to change it. Adding or removing names goes through [`Tree::apply`].
    ///
    /// # Panics
    /// If the index is not from this tree: a bug of the caller.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// How many indexes the arena has, removed nodes included: an upper bound of the inodes.
    #[must_use]
    pub fn arena_len(&self) -> usize {
        self.nodes.len()
    }

    /// The node at a path of plain components separated by slashes; symbolic links are not followed.
    #[must_use]
    pub fn lookup(&self, path: &[u8]) -> Option<NodeId> {
        let mut at = Self::ROOT;
        for name in path
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
        {
            at = self.node(at).children()?.get(name)?.node;
        }
        Some(at)
    }
}
