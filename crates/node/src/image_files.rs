//! An image's tree as a FUSE filesystem.

use std::io;
use std::sync::Arc;

use draught_erofs::BLOCK_BYTES;
use draught_mount::fuse::{Attributes, DirEntry, Files, ROOT, ReadReply};
use draught_tree::{Kind, NodeId, Tree};

use crate::device_reads::{Part, answer};
use crate::engine::Engine;
use crate::paths::{Metadata, Piece};
use crate::served::Served;

/// See the module. Inode numbers are those of the tree's nodes, so that whoever reads the same metadata
/// gives out the same.
#[derive(Debug)]
pub(crate) struct ImageFiles {
    engine: Arc<Engine>,
    devices: Vec<Arc<Served>>,
    metadata: Arc<Metadata>,
}

impl ImageFiles {
    pub(crate) fn new(
        engine: Arc<Engine>,
        devices: Vec<Arc<Served>>,
        metadata: Arc<Metadata>,
    ) -> Self {
        Self {
            engine,
            devices,
            metadata,
        }
    }

    fn node(&self, inode: u64) -> io::Result<NodeId> {
        let node = inode.checked_sub(ROOT);
        let node = node.and_then(|node| u32::try_from(node).ok()).map(NodeId);
        let known = node.filter(|node| node.index() < self.metadata.tree.arena_len());
        known.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn attributes_of(&self, node: NodeId) -> Attributes {
        let own = self.metadata.tree.node(node);
        let directories = own.children().into_iter().flatten().filter(|(_, child)| {
            let kind = &self.metadata.tree.node(child.node).kind;
            matches!(kind, Kind::Directory(_))
        });
        let bytes = match &own.kind {
            // Of a file without chunks in the tree, the pieces know.
            Kind::File { bytes, .. } => {
                let content = self.metadata.files.get(&node);
                content.map_or(*bytes, |(bytes, _)| *bytes)
            }
            Kind::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        let rdev = match own.kind {
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                (major, minor)
            }
            _ => (0, 0),
        };
        Attributes {
            inode: inode_of(node),
            bytes,
            mode: own.st_mode(),
            nlink: match own.kind {
                Kind::Directory(_) => {
                    u32::try_from(directories.count()).unwrap_or(u32::MAX - 2) + 2
                }
                _ => own.names,
            },
            uid: own.meta.uid,
            gid: own.meta.gid,
            rdev,
            mtime: own.meta.mtime,
            mtime_nanos: own.meta.mtime_nsec,
        }
    }

    fn parts(&self, pieces: &[Piece], offset: u64, end: u64) -> Vec<Part> {
        let begin = |piece: &Piece| u64::from(piece.file_block) * BLOCK_BYTES;
        let after = |piece: &Piece| begin(piece) + u64::from(piece.blocks) * BLOCK_BYTES;
        let first = pieces.partition_point(|piece| after(piece) <= offset);
        let pieces = pieces.get(first..).unwrap_or_default().iter();
        let covered = pieces.take_while(|piece| begin(piece) < end);
        let parts = covered.filter_map(|piece| {
            let from = begin(piece).max(offset);
            let to = after(piece).min(end);
            let start = u64::from(piece.block) * BLOCK_BYTES + (from - begin(piece));
            Some(Part {
                served: Arc::clone(self.devices.get(usize::from(piece.device))?),
                range: start..start + (to - from),
                at: usize::try_from(from - offset).ok()?,
            })
        });
        parts.collect()
    }
}

fn inode_of(node: NodeId) -> u64 {
    u64::from(node.0) + ROOT
}

impl Files for ImageFiles {
    fn lookup(&self, parent: u64, name: &[u8]) -> io::Result<Attributes> {
        let children = self.metadata.tree.node(self.node(parent)?).children();
        let children = children.ok_or(io::ErrorKind::NotADirectory)?;
        let child = children.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.attributes_of(child.node))
    }

    fn attributes(&self, inode: u64) -> io::Result<Attributes> {
        Ok(self.attributes_of(self.node(inode)?))
    }

    fn list(
        &self,
        inode: u64,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> io::Result<()> {
        let tree: &Tree = &self.metadata.tree;
        let children = tree.node(self.node(inode)?).children();
        let children = children.ok_or(io::ErrorKind::NotADirectory)?;
        // The parent's number is not known here, and nobody relies on it: the kernel resolves ".." by itself.
        let dots = [&b"."[..], b".."].map(|name| (name, inode));
        let names = children
            .iter()
            .map(|(name, child)| (&name[..], inode_of(child.node)));
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (name, inode)) in (1..).zip(dots.into_iter().chain(names)).skip(skip) {
            let entry = DirEntry {
                inode,
                next: at,
                mode: tree.node(self.node(inode)?).st_mode(),
                name,
            };
            if !add(entry) {
                break;
            }
        }
        Ok(())
    }

    fn target(&self, inode: u64) -> io::Result<Vec<u8>> {
        match &self.metadata.tree.node(self.node(inode)?).kind {
            Kind::Symlink(target) => Ok(target.to_vec()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn xattr(&self, inode: u64, name: &[u8]) -> io::Result<Vec<u8>> {
        let xattrs = &self.metadata.tree.node(self.node(inode)?).meta.xattrs;
        let own = xattrs.iter().find(|(key, _)| **key == *name);
        let (_, value) = own.ok_or(io::ErrorKind::NotFound)?;
        Ok(value.to_vec())
    }

    fn xattr_names(&self, inode: u64) -> io::Result<Vec<Vec<u8>>> {
        let xattrs = &self.metadata.tree.node(self.node(inode)?).meta.xattrs;
        Ok(xattrs.iter().map(|(key, _)| key.to_vec()).collect())
    }

    fn read(&self, inode: u64, offset: u64, bytes: u32, reply: ReadReply) {
        let Ok(node) = self.node(inode) else {
            return reply.fail(&io::ErrorKind::NotFound.into());
        };
        let content = self.metadata.files.get(&node);
        let (size, pieces) = content.map_or((0, &[][..]), |(size, pieces)| (*size, &pieces[..]));
        let end = offset.saturating_add(bytes.into()).min(size);
        if end <= offset {
            return reply.data(&[]);
        }
        let len = usize::try_from(end - offset).unwrap_or(usize::MAX);
        answer(&self.engine, self.parts(pieces, offset, end), len, reply);
    }
}
