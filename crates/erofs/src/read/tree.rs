//! A tree from an image.

use std::collections::{BTreeMap, BTreeSet};

use draught_tree::{ChunkId, Entry, EntryKind, Meta, NodeId, Tree};

use crate::read::error::ReadError;
use crate::read::image::{Dirent, Image, Inode, dirents};

/// What an image may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What every entry may ask for, and how many inodes there may be.
    pub tree: draught_tree::Limits,
    /// Names, those of hard links included. Inodes can share their directories' bytes, so the
    /// image's size alone does not bound them.
    pub names_max: u64,
    /// Bytes of the paths of all names together, which is what reading them costs: ten million names
    /// with paths of 100 bytes.
    pub path_bytes_max: u64,
    /// Bytes of one directory: a million names of 64 bytes.
    pub directory_bytes_max: u64,
    /// Chunks of all files together; inodes can share the bytes of their indexes. 2^26 chunks of
    /// 64 KiB are 4 TiB, and take 256 MiB in a tree.
    pub chunk_refs_max: u64,
    /// Bytes of all extended attributes and symbolic links together.
    pub loose_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tree: draught_tree::Limits::default(),
            names_max: 1 << 24,
            path_bytes_max: 1 << 30,
            directory_bytes_max: 1 << 26,
            chunk_refs_max: 1 << 26,
            loose_bytes_max: 1 << 28,
        }
    }
}

/// A tree that was read.
#[derive(Debug)]
pub struct ReadTree {
    /// The tree; its map is empty.
    pub tree: Tree,
    /// The node of every inode number, sorted by number.
    pub nodes: Vec<(u64, NodeId)>,
}

impl ReadTree {
    /// The node of an inode number.
    #[must_use]
    pub fn node(&self, nid: u64) -> Option<NodeId> {
        let at = self
            .nodes
            .binary_search_by_key(&nid, |(nid, _)| *nid)
            .ok()?;
        self.nodes.get(at).map(|(_, node)| *node)
    }
}

/// What gives the chunks of a file, in order.
pub type ReadContent<'a, E> = dyn FnMut(&Inode) -> Result<Box<[ChunkId]>, E> + 'a;

/// Reads the whole tree. `content` gives the chunks of a file, which count against [`Limits::chunk_refs_max`]. Times, owners, attributes, device numbers and links come along; names are
/// applied as those of one layer, so names of whiteouts are whiteouts.
///
/// # Errors
/// `E` is what `content` fails with.
pub fn read_tree<E: From<ReadError>>(
    image: &Image<'_>,
    limits: &Limits,
    content: &mut ReadContent<'_, E>,
) -> Result<ReadTree, E> {
    let mut walk = Walk {
        image,
        limits,
        tree: Tree::new(),
        nodes: Vec::new(),
        first_names: BTreeMap::new(),
        names: Budget::new("names", limits.names_max),
        paths: Budget::new("bytes of paths", limits.path_bytes_max),
        chunks: Budget::new("chunks of files", limits.chunk_refs_max),
        loose: Budget::new(
            "bytes of extended attributes and symbolic links",
            limits.loose_bytes_max,
        ),
    };
    walk.tree.begin_layer();
    let root = u64::from(image.superblock().root_nid);
    walk.entry(root, Box::from(&b"/"[..]), content)?;
    let mut seen = BTreeSet::from([root]);
    let mut stack = vec![(root, Vec::new())];
    while let Some((nid, path)) = stack.pop() {
        for (name, child) in walk.children(nid)? {
            let mut child_path = path.clone();
            child_path.push(b'/');
            child_path.extend_from_slice(&name);
            if walk.entry(child, child_path.as_slice().into(), content)? {
                if !seen.insert(child) {
                    let problem = "a directory with two names";
                    return Err(ReadError::Inode {
                        nid: child,
                        problem,
                    }
                    .into());
                }
                stack.push((child, child_path));
            }
        }
    }
    walk.nodes.sort_unstable();
    walk.nodes.dedup_by_key(|(nid, _)| *nid);
    Ok(ReadTree {
        tree: walk.tree,
        nodes: walk.nodes,
    })
}

struct Walk<'a> {
    image: &'a Image<'a>,
    limits: &'a Limits,
    tree: Tree,
    nodes: Vec<(u64, NodeId)>,
    /// Inodes that say to have several names, with the first one.
    first_names: BTreeMap<u64, Box<[u8]>>,
    names: Budget,
    paths: Budget,
    chunks: Budget,
    loose: Budget,
}

type Children = Vec<(Box<[u8]>, u64)>;

impl Walk<'_> {
    /// The names in a directory, checked, without `.` and `..`.
    fn children(&mut self, nid: u64) -> Result<Children, ReadError> {
        let inode = self.image.inode(nid)?;
        let data = self.image.data(&inode, self.limits.directory_bytes_max)?;
        let mut children = Children::new();
        let mut last: Option<&[u8]> = None;
        dirents(nid, &data, |Dirent { name, nid: child }| {
            let bad = |problem| ReadError::Inode { nid, problem };
            if last.is_some_and(|last| last >= name) {
                return Err(bad(
                    "a directory whose names are not sorted, or are there twice",
                ));
            }
            last = Some(name);
            if name == b"." || name == b".." {
                return Ok(());
            }
            if name.is_empty() || name.contains(&0) || name.contains(&b'/') {
                return Err(bad("a directory with a name that no file can have"));
            }
            self.names.take(1)?;
            children.push((name.into(), child));
            Ok(())
        })?;
        Ok(children)
    }

    /// Puts one name into the tree; says whether it is a directory.
    fn entry<E: From<ReadError>>(
        &mut self,
        nid: u64,
        path: Box<[u8]>,
        content: &mut ReadContent<'_, E>,
    ) -> Result<bool, E> {
        self.paths
            .take(u64::try_from(path.len()).unwrap_or(u64::MAX))?;
        let inode = self.image.inode(nid)?;
        let is_directory = inode.file_type() == 0o040_000;
        let mut meta = Meta::default();
        let mut first = None;
        let kind = match self.first_names.get(&nid) {
            Some(first) => EntryKind::HardLink(first.clone()),
            None => {
                if inode.links > 1 && !is_directory {
                    first = Some(path.clone());
                }
                meta = self.meta(&inode)?;
                self.kind(&inode, content)?
            }
        };
        let applied = self
            .tree
            .apply(Entry { path, meta, kind }, &self.limits.tree);
        let node = applied.map_err(|source| ReadError::Apply { nid, source })?;
        self.nodes.extend(node.map(|node| (nid, node)));
        if let Some(first) = first {
            self.first_names.insert(nid, first);
        }
        Ok(is_directory)
    }

    fn meta(&mut self, inode: &Inode) -> Result<Meta, ReadError> {
        self.loose.take(inode.xattr_bytes)?;
        Ok(Meta {
            mode: u16::try_from(inode.mode & 0o7777).unwrap_or(0),
            uid: inode.uid,
            gid: inode.gid,
            mtime: inode.mtime,
            mtime_nsec: inode.mtime_nsec,
            xattrs: self.image.xattrs(inode)?,
        })
    }

    fn kind<E: From<ReadError>>(
        &mut self,
        inode: &Inode,
        content: &mut ReadContent<'_, E>,
    ) -> Result<EntryKind, E> {
        let (major, minor) = inode.device_number();
        Ok(match inode.file_type() {
            0o040_000 => EntryKind::Directory,
            0o100_000 => {
                let chunks = content(inode)?;
                self.chunks
                    .take(u64::try_from(chunks.len()).unwrap_or(u64::MAX))?;
                EntryKind::File {
                    bytes: inode.bytes,
                    chunks,
                }
            }
            0o120_000 => {
                let limit = u64::try_from(self.limits.tree.symlink_bytes_max).unwrap_or(u64::MAX);
                let target = self.image.data(inode, limit)?;
                self.loose.take(inode.bytes)?;
                if target.is_empty() || target.contains(&0) {
                    let problem = "a symbolic link without a target, or with a zero in it";
                    return Err(ReadError::Inode {
                        nid: inode.nid,
                        problem,
                    }
                    .into());
                }
                EntryKind::Symlink(target.into())
            }
            0o020_000 => EntryKind::CharDevice { major, minor },
            0o060_000 => EntryKind::BlockDevice { major, minor },
            0o010_000 => EntryKind::Fifo,
            0o140_000 => EntryKind::Socket,
            _ => {
                let problem = "a type of file that is not known";
                return Err(ReadError::Inode {
                    nid: inode.nid,
                    problem,
                }
                .into());
            }
        })
    }
}

/// How much of something is left.
struct Budget {
    what: &'static str,
    limit: u64,
    left: u64,
}

impl Budget {
    fn new(what: &'static str, limit: u64) -> Self {
        Self {
            what,
            limit,
            left: limit,
        }
    }

    fn take(&mut self, amount: u64) -> Result<(), ReadError> {
        let left = self.left.checked_sub(amount);
        self.left = left.ok_or(ReadError::Limit {
            what: self.what,
            limit: self.limit,
        })?;
        Ok(())
    }
}
