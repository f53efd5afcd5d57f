//! The layout routine: inodes, attributes, directories, chunk indexes.
//!
//! Inodes come first, the children of a directory together, in the order of their names. Whole blocks of
//! directories (and of long symbolic links) come after the last inode. A tail that would cross a block's end
//! moves to the next block with its inode when it is short, or to a block of its own.

use std::io;

use draught_tree::{Kind, Node, NodeId, Tree};
use zerocopy::IntoBytes as _;

use crate::raw::{
    FILE_TYPES, FORMAT_EXTENDED, FORMAT_LAYOUT_SHIFT, LAYOUT_CHUNKED, LAYOUT_INLINE, LAYOUT_PLAIN,
    MODE_TYPE_MASK, NULL_BLOCK, RawInodeExtended,
};
use crate::write::content::{ChunkList, Content};
use crate::write::dirent::Directory;
use crate::write::error::WriteError;
use crate::write::sink::{Learn, Sink, UNSETTLED, Write};
use crate::write::xattr::EncodedXattrs;
use crate::{BLOCK_BYTES, CHUNK_INDEX_BYTES, SLOT_BYTES};

const INODE_BYTES: u64 = 64;
const _: () = assert!(size_of::<RawInodeExtended>() as u64 == INODE_BYTES);
/// Longer tails get a block of their own rather than a new block for their inode: either way less
/// than half a block is lost.
const TAIL_MOVED_BYTES_MAX: u64 = BLOCK_BYTES / 2;
const NAME_BYTES_MAX: usize = 255;
const SYMLINK_BYTES_MAX: usize = 4095;
const MAJOR_MAX: u32 = (1 << 12) - 1;
const MINOR_MAX: u32 = (1 << 20) - 1;

/// Where all inodes and directories of a tree come to lie.
#[derive(Debug)]
pub struct Plan<'a, C> {
    tree: &'a Tree,
    content: &'a C,
    start: u64,
    blocks_start: u64,
    end: u64,
    nids: Vec<u32>,
    totals: Totals,
}

/// What a run of the layout routine counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Totals {
    inodes: u64,
    xattrs: u64,
    xattrs_left_out: u64,
}

impl<'a, C: Content> Plan<'a, C> {
    /// Lays the tree out from byte `start` of the image on, a multiple of a block and not zero.
    ///
    /// # Errors
    /// When the tree can't be expressed.
    pub fn new(tree: &'a Tree, content: &'a C, start: u64) -> Result<Self, WriteError> {
        let start = start.next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES);
        let sink = Learn {
            nids: vec![UNSETTLED; tree.arena_len()],
            position: start,
        };
        let mut run = Run::new(tree, content, sink, start, 0);
        let blocks_start = run.inodes()?;
        run.blocks()?;
        let end = run.sink.position;
        if u32::try_from(end / BLOCK_BYTES).is_err() {
            return Err(WriteError::TooLarge { bytes: end });
        }
        Ok(Self {
            tree,
            content,
            start,
            blocks_start,
            end,
            totals: run.totals,
            nids: run.sink.nids,
        })
    }

    /// Writes the bytes from [`Self::start`] to [`Self::end`].
    ///
    /// # Errors
    /// When `out` can't take them.
    pub fn write(&self, out: &mut impl io::Write) -> Result<(), WriteError> {
        let sink = Write {
            nids: &self.nids,
            position: self.start,
            out,
        };
        let mut run = Run::new(self.tree, self.content, sink, self.start, self.blocks_start);
        let blocks_start = run.inodes()?;
        run.blocks()?;
        let done = (blocks_start, run.sink.position, run.totals);
        assert_eq!(
            done,
            (self.blocks_start, self.end, self.totals),
            "both runs of the layout routine agree"
        );
        Ok(())
    }

    /// The number of a node's inode; `None` for one that is not part of the tree.
    #[must_use]
    pub fn nid(&self, node: NodeId) -> Option<u32> {
        let nid = self.nids.get(node.index()).copied()?;
        (nid != UNSETTLED).then_some(nid)
    }

    /// Where the first inode, the root's, begins in the image, in bytes.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Where the last block ends, in bytes; a multiple of a block.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The block that inode numbers count from: one before the first inode, because programs
    /// take number 0 for a deleted file.
    #[must_use]
    pub fn meta_block(&self) -> u32 {
        u32::try_from(self.start / BLOCK_BYTES - 1).unwrap_or(u32::MAX)
    }

    /// The root directory's inode number.
    #[must_use]
    pub fn root_nid(&self) -> u16 {
        u16::try_from(BLOCK_BYTES / SLOT_BYTES).unwrap_or(u16::MAX)
    }

    /// How many inodes there are.
    #[must_use]
    pub fn inodes(&self) -> u64 {
        self.totals.inodes
    }

    /// How many inodes have extended attributes.
    #[must_use]
    pub fn inodes_with_xattrs(&self) -> u64 {
        self.totals.xattrs
    }

    /// How many extended attributes are of a class that the kernel has no name for, and were left out.
    #[must_use]
    pub fn xattrs_left_out(&self) -> u64 {
        self.totals.xattrs_left_out
    }
}

/// One run over the tree.
struct Run<'a, C, S> {
    tree: &'a Tree,
    content: &'a C,
    sink: S,
    /// The byte that inode numbers count from.
    meta: u64,
    /// Where whole blocks begin; not known in the first run.
    blocks_start: u64,
    /// Whole blocks promised so far.
    blocks: u64,
    /// Whose blocks follow the inodes, in order: (node, its parent, bytes of its data that do).
    promised: Vec<(NodeId, NodeId, u64)>,
    totals: Totals,
    xattrs: EncodedXattrs,
    directory: Directory<'a>,
    data: Vec<u8>,
    list: ChunkList,
}

/// What differs between inodes of one kind.
struct Body {
    layout: u16,
    bytes: u64,
    union: u32,
    links: u32,
}

impl<'a, C: Content, S: Sink> Run<'a, C, S> {
    fn new(tree: &'a Tree, content: &'a C, sink: S, start: u64, blocks_start: u64) -> Self {
        Self {
            tree,
            content,
            sink,
            meta: start - BLOCK_BYTES,
            blocks_start,
            blocks: 0,
            promised: Vec::new(),
            totals: Totals::default(),
            xattrs: EncodedXattrs::default(),
            directory: Directory::default(),
            data: Vec::new(),
            list: ChunkList::new(),
        }
    }

    /// Puts all inodes; gives where the blocks after them begin.
    fn inodes(&mut self) -> Result<u64, WriteError> {
        self.inode(Tree::ROOT, Tree::ROOT)?;
        let mut stack = vec![Tree::ROOT];
        while let Some(directory) = stack.pop() {
            let children = self.tree.node(directory).children().into_iter().flatten();
            let below = stack.len();
            for (_, name) in children {
                // A hard link's inode was put with its first name.
                let here = (self.sink.position() - self.meta) / SLOT_BYTES;
                if u64::from(self.sink.nid(name.node)) < here {
                    continue;
                }
                self.inode(name.node, directory)?;
                if matches!(self.tree.node(name.node).kind, Kind::Directory(_)) {
                    stack.push(name.node);
                }
            }
            if let Some(pushed) = stack.get_mut(below..) {
                pushed.reverse();
            }
        }
        self.sink.align(BLOCK_BYTES)?;
        Ok(self.sink.position())
    }

    /// Puts the whole blocks that inodes were promised.
    fn blocks(&mut self) -> Result<(), WriteError> {
        for (id, parent, bytes) in std::mem::take(&mut self.promised) {
            self.load(id, parent)?;
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            let data = std::mem::take(&mut self.data);
            self.sink.put(data.get(..bytes).unwrap_or(&data))?;
            self.data = data;
            self.sink.align(BLOCK_BYTES)?;
        }
        Ok(())
    }

    fn inode(&mut self, id: NodeId, parent: NodeId) -> Result<(), WriteError> {
        let node = self.tree.node(id);
        let encoded = self.xattrs.encode(&node.meta.xattrs);
        encoded.map_err(|(at, what, bytes)| {
            let name = node.meta.xattrs.get(at);
            WriteError::Xattr {
                path: self.path(id),
                name: name.map(|(name, _)| show(name)).unwrap_or_default(),
                what,
                bytes,
            }
        })?;
        self.totals.inodes += 1;
        self.totals.xattrs += u64::from(self.xattrs.count != 0);
        self.totals.xattrs_left_out += self.xattrs.left_out;
        let header = INODE_BYTES + u64::try_from(self.xattrs.bytes.len()).unwrap_or(u64::MAX);
        match &node.kind {
            Kind::Directory(_) | Kind::Symlink(_) => self.with_data(id, parent, header)?,
            Kind::File { bytes, chunks } => {
                self.list.indexes.clear();
                let described = self.content.describe(id, *bytes, chunks, &mut self.list);
                described.map_err(|source| WriteError::Content {
                    path: self.path(id),
                    source,
                })?;
                let body = Body {
                    layout: LAYOUT_CHUNKED,
                    bytes: *bytes,
                    union: self.list.format(),
                    links: node.names,
                };
                self.header(id, node, &body)?;
                self.sink.align(CHUNK_INDEX_BYTES)?;
                self.data.clear();
                for index in &self.list.indexes {
                    index.encode_to(&mut self.data);
                }
                self.sink.put(&self.data)?;
            }
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                let union = device_number(*major, *minor).ok_or_else(|| {
                    let (major, minor) = (*major, *minor);
                    let path = self.path(id);
                    WriteError::DeviceNumber { path, major, minor }
                })?;
                self.header(id, node, &Body::empty(node, union))?;
            }
            Kind::Fifo | Kind::Socket => self.header(id, node, &Body::empty(node, 0))?,
        }
        self.sink.align(SLOT_BYTES)
    }

    /// Puts a directory's or symbolic link's inode, with the tail of its data if that fits.
    fn with_data(&mut self, id: NodeId, parent: NodeId, header: u64) -> Result<(), WriteError> {
        let node = self.tree.node(id);
        self.load(id, parent)?;
        let bytes = u64::try_from(self.data.len()).unwrap_or(u64::MAX);
        let tail = bytes % BLOCK_BYTES;
        let whole = header + tail;
        let fits_here = self.sink.position() % BLOCK_BYTES + whole <= BLOCK_BYTES;
        let fits_next = whole <= BLOCK_BYTES && tail <= TAIL_MOVED_BYTES_MAX;
        let inline = tail != 0 && (fits_here || fits_next);
        if inline && !fits_here {
            self.sink.align(BLOCK_BYTES)?;
        }
        let in_blocks = if inline { bytes - tail } else { bytes };
        let first_block = self.blocks_start / BLOCK_BYTES + self.blocks;
        let links = node.children().map_or(node.names, |children| {
            let directory =
                |name: &&draught_tree::Name| self.tree.node(name.node).children().is_some();
            let below = children.values().filter(directory).count();
            u32::try_from(below).unwrap_or(u32::MAX).saturating_add(2)
        });
        let body = Body {
            layout: if inline { LAYOUT_INLINE } else { LAYOUT_PLAIN },
            bytes,
            union: if in_blocks == 0 {
                NULL_BLOCK
            } else {
                u32::try_from(first_block).unwrap_or(NULL_BLOCK)
            },
            links,
        };
        if in_blocks != 0 {
            self.promised.push((id, parent, in_blocks));
            self.blocks += in_blocks.div_ceil(BLOCK_BYTES);
        }
        self.header(id, node, &body)?;
        if inline {
            let data = std::mem::take(&mut self.data);
            let from = usize::try_from(in_blocks).unwrap_or(usize::MAX);
            self.sink.put(data.get(from..).unwrap_or_default())?;
            self.data = data;
        }
        Ok(())
    }

    /// Puts the data of a directory or symbolic link into `self.data`.
    fn load(&mut self, id: NodeId, parent: NodeId) -> Result<(), WriteError> {
        match &self.tree.node(id).kind {
            Kind::Symlink(target) => {
                if target.is_empty() || target.len() > SYMLINK_BYTES_MAX {
                    return Err(WriteError::Symlink {
                        path: self.path(id),
                        bytes: target.len(),
                    });
                }
                self.data.clear();
                self.data.extend_from_slice(target);
            }
            Kind::Directory(children) => {
                let entries = &mut self.directory.entries;
                entries.clear();
                for (name, child) in children {
                    if name.is_empty() || name.len() > NAME_BYTES_MAX {
                        return Err(WriteError::Name {
                            path: self.path(id),
                            bytes: name.len(),
                        });
                    }
                    let nid = u64::from(self.sink.nid(child.node));
                    let file_type = file_type(self.tree.node(child.node).st_mode());
                    entries.push((name, nid, file_type));
                }
                for (name, node) in [(&b"."[..], id), (&b".."[..], parent)] {
                    let at = entries.partition_point(|(other, _, _)| *other < name);
                    let directory = file_type(self.tree.node(Tree::ROOT).st_mode());
                    entries.insert(at, (name, u64::from(self.sink.nid(node)), directory));
                }
                self.directory.pack(&mut self.data);
            }
            _ => self.data.clear(),
        }
        Ok(())
    }

    /// Puts an inode and its attributes at the next slot.
    fn header(&mut self, id: NodeId, node: &Node, body: &Body) -> Result<(), WriteError> {
        let position = self.sink.position();
        let nid = (position - self.meta) / SLOT_BYTES;
        let nid = u32::try_from(nid).ok().filter(|nid| *nid != UNSETTLED);
        let nid = nid.ok_or(WriteError::TooLarge { bytes: position })?;
        self.sink.settle(id, nid);
        let raw = RawInodeExtended {
            format: (FORMAT_EXTENDED | body.layout << FORMAT_LAYOUT_SHIFT).into(),
            xattr_count: self.xattrs.count.into(),
            mode: u16::try_from(node.st_mode()).unwrap_or(u16::MAX).into(),
            reserved: 0.into(),
            bytes: body.bytes.into(),
            union: body.union.into(),
            ino: nid.into(),
            uid: node.meta.uid.into(),
            gid: node.meta.gid.into(),
            mtime: node.meta.mtime.into(),
            mtime_nsec: node.meta.mtime_nsec.into(),
            links: body.links.into(),
            reserved2: [0; 16],
        };
        self.sink.put(raw.as_bytes())?;
        self.sink.put(&self.xattrs.bytes)
    }

    /// The path of a node, for errors.
    fn path(&self, id: NodeId) -> String {
        let found = self.tree.walk().find(|(_, node)| *node == id);
        found.map(|(path, _)| show(&path)).unwrap_or_default()
    }
}

impl Body {
    fn empty(node: &Node, union: u32) -> Self {
        Self {
            layout: LAYOUT_PLAIN,
            bytes: 0,
            union,
            links: node.names,
        }
    }
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn file_type(mode: u32) -> u8 {
    let found = FILE_TYPES
        .iter()
        .find(|(bits, _)| *bits == mode & MODE_TYPE_MASK);
    found.map_or(0, |(_, file_type)| *file_type)
}

/// A device number as Linux encodes it in 32 bits.
fn device_number(major: u32, minor: u32) -> Option<u32> {
    if major > MAJOR_MAX || minor > MINOR_MAX {
        return None;
    }
    Some((minor & 0xFF) | major << 8 | (minor & !0xFF) << 12)
}
