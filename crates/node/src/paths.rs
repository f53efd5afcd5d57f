//! From places on devices to paths of files and back, as an image's metadata has it.
//!
//! Needed when somebody looks: at what was touched, or at a profile. Never when something is read.

use std::collections::BTreeMap;
use std::ops::Range;

use draught_digest::Digest;
use draught_erofs::{BLOCK_BYTES, Image, Inode, Layout, Limits, ReadError, read_tree};
use draught_profile::{Profile, Touch as ProfileTouch};
use draught_tree::{NodeId, Tree};

use crate::touches::{Touch, Touches};

/// Part of a file on a device, in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Piece {
    pub(crate) device: u16,
    pub(crate) block: u32,
    pub(crate) blocks: u32,
    file: u32,
    /// Where in the file it begins.
    pub(crate) file_block: u32,
}

/// The tree of an image's metadata, and of each regular file that has content its size and its pieces.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) tree: Tree,
    pub(crate) files: BTreeMap<NodeId, (u64, Vec<Piece>)>,
}

impl Metadata {
    /// Reads an image's metadata.
    pub(crate) fn read(metadata: &[u8]) -> Result<Self, ReadError> {
        let image = Image::open(metadata)?;
        let devices = image.superblock().extra_devices;
        let mut content = BTreeMap::new();
        let read = read_tree(&image, &Limits::default(), &mut |inode: &Inode| {
            content.insert(inode.nid, (inode.bytes, pieces(&image, inode, devices)?));
            Ok::<_, ReadError>(Box::default())
        })?;
        let mut files = BTreeMap::new();
        for (nid, node) in &read.nodes {
            if let Some(found) = content.remove(nid) {
                files.insert(*node, found);
            }
        }
        Ok(Self {
            tree: read.tree,
            files,
        })
    }
}

/// A regular file.
#[derive(Debug)]
pub(crate) struct PathFile {
    /// Without a leading slash.
    pub(crate) path: Vec<u8>,
    pub(crate) bytes: u64,
    pieces: Vec<Piece>,
}

/// All regular files of an image with content.
#[derive(Debug)]
pub(crate) struct Paths {
    /// In the order of the tree.
    pub(crate) files: Vec<PathFile>,
    /// Sorted by where they are.
    pieces: Vec<Piece>,
    tree: Tree,
    of_node: BTreeMap<NodeId, u32>,
}

impl Paths {
    /// Reads an image's metadata.
    pub(crate) fn read(metadata: &[u8]) -> Result<Self, ReadError> {
        let Metadata {
            tree,
            files: mut by_node,
        } = Metadata::read(metadata)?;
        let mut files: Vec<PathFile> = Vec::new();
        let mut of_node = BTreeMap::new();
        for (path, node) in tree.walk() {
            // A file with several names is known by its first.
            let Some((bytes, mut pieces)) = by_node.remove(&node) else {
                continue;
            };
            let Ok(index) = u32::try_from(files.len()) else {
                break;
            };
            pieces.iter_mut().for_each(|piece| piece.file = index);
            of_node.insert(node, index);
            let path = path.strip_prefix(b"/").unwrap_or(&path).to_vec();
            files.push(PathFile {
                path,
                bytes,
                pieces,
            });
        }
        let mut pieces: Vec<Piece> = files.iter().flat_map(|file| file.pieces.clone()).collect();
        pieces.sort_unstable();
        Ok(Self {
            files,
            pieces,
            tree,
            of_node,
        })
    }

    /// The parts of files that lie in a range of a device's blocks: the file, and the bytes of it. Of files
    /// that share a place, one.
    pub(crate) fn at(&self, device: u16, blocks: Range<u32>) -> Vec<(&PathFile, Range<u64>)> {
        let end = (device, blocks.end);
        let below = self
            .pieces
            .partition_point(|piece| (piece.device, piece.block) < end);
        let mut found = Vec::new();
        let mut last_block = u32::MAX;
        for piece in self.pieces.get(..below).unwrap_or_default().iter().rev() {
            if piece.device != device || piece.block.saturating_add(piece.blocks) <= blocks.start {
                // Pieces do not overlap but where they are the same.
                break;
            }
            if piece.block == last_block {
                continue;
            }
            last_block = piece.block;
            let start = blocks.start.max(piece.block);
            let end = blocks.end.min(piece.block + piece.blocks);
            let in_file =
                |block: u32| u64::from(piece.file_block + (block - piece.block)) * BLOCK_BYTES;
            if let Some(file) = self
                .files
                .get(usize::try_from(piece.file).unwrap_or(usize::MAX))
            {
                found.push((file, in_file(start)..in_file(end).min(file.bytes)));
            }
        }
        found.reverse();
        found
    }

    /// Where a file's content lies: device and bytes of it, in the order of the file.
    pub(crate) fn places(file: &PathFile) -> impl Iterator<Item = (u16, Range<u64>)> {
        file.pieces.iter().map(|piece| {
            let start = u64::from(piece.block) * BLOCK_BYTES;
            (
                piece.device,
                start..start + u64::from(piece.blocks) * BLOCK_BYTES,
            )
        })
    }

    /// A recording as a profile.
    pub(crate) fn profile(&self, touches: &[Touch], reference: &str, image: &str) -> Profile {
        let mut profile = Profile {
            reference: reference.to_owned(),
            image: image.parse::<Digest>().ok(),
            touches: Vec::new(),
        };
        for touch in touches {
            let blocks = touch.block..touch.block.saturating_add(touch.blocks);
            for (file, bytes) in self.at(touch.device, blocks) {
                profile.touches.push(ProfileTouch {
                    path: file.path.clone(),
                    offset: bytes.start,
                    bytes: bytes.end.saturating_sub(bytes.start),
                    at_ms: u64::from(touch.at_ms),
                });
            }
        }
        profile.compact();
        profile
    }

    /// A profile as a recording of this image. What it does not have is left out.
    pub(crate) fn touches(&self, profile: &Profile) -> Touches {
        let mut touches = Touches::default();
        for touch in &profile.touches {
            let node = self.tree.lookup(&touch.path);
            let file = node.and_then(|node| self.of_node.get(&node));
            let file = file.and_then(|file| self.files.get(usize::try_from(*file).ok()?));
            let Some(file) = file else { continue };
            let block = |bytes: u64| u32::try_from(bytes / BLOCK_BYTES).unwrap_or(u32::MAX);
            let end = touch.offset.saturating_add(touch.bytes).min(file.bytes);
            let wanted = block(touch.offset)..block(end.next_multiple_of(BLOCK_BYTES));
            let at_ms = u32::try_from(touch.at_ms).unwrap_or(u32::MAX);
            for piece in &file.pieces {
                let start = wanted.start.max(piece.file_block);
                let end = wanted.end.min(piece.file_block + piece.blocks);
                if start < end {
                    let on_device = |at: u32| piece.block + (at - piece.file_block);
                    touches.touch(at_ms, piece.device, on_device(start)..on_device(end));
                }
            }
        }
        touches
    }
}

/// The pieces of a file, its number left out; what follows on each other is one.
fn pieces(image: &Image<'_>, inode: &Inode, devices: u16) -> Result<Vec<Piece>, ReadError> {
    let Layout::Chunks { bits } = inode.layout else {
        return Ok(Vec::new());
    };
    let file_blocks = inode.bytes.div_ceil(BLOCK_BYTES);
    let step = 1_u64 << (bits - draught_erofs::BLOCK_BITS);
    // The kernel looks at as many bits of a device's number as their count takes.
    let mask = u16::try_from(u32::from(devices).next_power_of_two() * 2 - 1).unwrap_or(u16::MAX);
    let indexes = image.chunk_indexes(inode, file_blocks.div_ceil(step))?;
    let mut pieces: Vec<Piece> = Vec::new();
    for (at, index) in (0_u64..)
        .step_by(usize::try_from(step).unwrap_or(usize::MAX))
        .zip(indexes)
    {
        let Some(device) = (index.device & mask)
            .checked_sub(1)
            .filter(|one| *one < devices)
        else {
            continue;
        };
        let blocks = u32::try_from(step.min(file_blocks - at)).unwrap_or(u32::MAX);
        let file_block = u32::try_from(at).unwrap_or(u32::MAX);
        match pieces.last_mut() {
            Some(last)
                if last.device == device
                    && last.block.checked_add(last.blocks) == Some(index.block)
                    && last.file_block + last.blocks == file_block =>
            {
                last.blocks += blocks;
            }
            _ => pieces.push(Piece {
                device,
                block: index.block,
                blocks,
                file: 0,
                file_block,
            }),
        }
    }
    Ok(pieces)
}
