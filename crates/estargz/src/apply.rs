//! From a table of contents to entries of a tree and chunks of its map.

use std::collections::BTreeMap;

use draught_digest::Digest;
use draught_tree::{
    BLOCK_BYTES, Blob, BlobId, BlobOffset, Chunk, ChunkId, ChunkOffset, Compression, DeviceOffset,
    Entry, EntryKind, Extent, ExtentId, Meta, NodeId, Tree, blocks_of,
};

use crate::document::{RawEntry, RawPlace, TOC_NAME, for_each};
use crate::entry::{digest, meta, name_at_root};
use crate::error::{ReadError, show};
use crate::reader::Limits;

/// A file that is there when all files before it are what a start needs.
pub(crate) const LANDMARK: &str = ".prefetch.landmark";
/// A file that is there when nothing is known of what a start needs.
pub(crate) const NO_LANDMARK: &str = ".no.prefetch.landmark";
/// Stored bytes that decoded ones can take at most, besides the headers of a member: an encoder that gives up
/// stores blocks as they are, with 5 bytes before each, and the smallest that any makes has some 500.
const STORED_SLACK_DIVISOR: u64 = 64;
/// Stored bytes for headers of a member, name and comment included, and for empty blocks.
const STORED_SLACK_BYTES: u64 = 64 << 10;

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What a start needs of this layer, in the order in which it is stored. Upper layers may hide it.
    pub prefetch: Vec<NodeId>,
    /// Stored size of the table of contents in bytes.
    pub toc_stored_bytes: u64,
    /// Bytes of the largest chunk.
    pub chunk_bytes_max: u32,
}

/// What is known of a layer besides its table.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) blob: Digest,
    pub(crate) stored_bytes: u64,
    pub(crate) toc_offset: u64,
    pub(crate) limits: Limits,
}

/// A place in a blob's decoded content: the member's offset, and the offset in it.
type Place = (u64, u64);

/// A piece of a file.
#[derive(Debug)]
struct Piece {
    at: Place,
    file_offset: u64,
    /// 0: up to the next piece, or the file's end.
    bytes: u64,
    digest: Option<Digest>,
}

/// A file whose chunks are still to come.
#[derive(Debug)]
struct File {
    path: String,
    meta: Meta,
    bytes: u64,
    digest: Option<Digest>,
    pieces: Vec<Piece>,
}

struct Applying<'a> {
    layer: &'a Layer,
    tree: &'a mut Tree,
    blob: BlobId,
    /// Where the members begin that entries name, and where the table begins, sorted.
    offsets: Vec<u64>,
    extents: BTreeMap<u64, ExtentId>,
    /// The next free byte of the blob's device.
    device_bytes: u64,
    file: Option<File>,
    landmark: Option<Place>,
    /// Files with where they begin.
    begins: Vec<(Place, NodeId)>,
    chunk_bytes_max: u32,
}

/// Puts a layer onto a tree.
pub(crate) fn apply(layer: &Layer, json: &[u8], tree: &mut Tree) -> Result<Applied, ReadError> {
    let offsets = offsets(layer, json)?;
    tree.begin_layer();
    // A manifest may name a layer twice.
    let known = tree.map.blobs.iter().position(|it| it.digest == layer.blob);
    let known = known.and_then(|index| u32::try_from(index).ok());
    let blob = match known {
        Some(index) => BlobId(index),
        None => {
            let blob = Blob {
                digest: layer.blob,
                stored_bytes: layer.stored_bytes,
                device_bytes: 0,
            };
            tree.map.push_blob(blob).ok_or_else(too_many)?
        }
    };
    let device_bytes = tree.map.blob(blob).map_or(0, |blob| blob.device_bytes);
    let mut applying = Applying {
        layer,
        tree,
        blob,
        offsets,
        extents: BTreeMap::new(),
        device_bytes,
        file: None,
        landmark: None,
        begins: Vec::new(),
        chunk_bytes_max: 0,
    };
    for_each(json, layer.limits.entries_max, &mut |entry| {
        applying.entry(&entry)
    })?;
    applying.finish_file()?;
    Ok(applying.finish())
}

/// Where the members begin that entries name, and where the table begins.
fn offsets(layer: &Layer, json: &[u8]) -> Result<Vec<u64>, ReadError> {
    let mut offsets = vec![layer.toc_offset];
    for_each(json, layer.limits.entries_max, &mut |place: RawPlace<
        '_,
    >| {
        if place.has_data() {
            offsets.push(place.offset);
        }
        Ok(())
    })?;
    offsets.sort_unstable();
    offsets.dedup();
    Ok(offsets)
}

fn too_many() -> ReadError {
    ReadError::TooLarge {
        what: "blobs, extents or chunks of the image",
        value: 1 << 32,
        limit: u32::MAX.into(),
    }
}

impl Applying<'_> {
    fn entry(&mut self, raw: &RawEntry<'_>) -> Result<(), ReadError> {
        if raw.kind == "chunk" {
            return self.piece(raw);
        }
        self.finish_file()?;
        match name_at_root(&raw.name) {
            Some(LANDMARK) if raw.kind == "reg" => {
                self.landmark = Some((raw.offset, raw.inner_offset));
                return Ok(());
            }
            Some(NO_LANDMARK | TOC_NAME) => return Ok(()),
            _ => {}
        }
        let meta = meta(raw)?;
        let kind = match &*raw.kind {
            "reg" => {
                self.begin_file(raw, meta)?;
                return Ok(());
            }
            "dir" => EntryKind::Directory,
            "symlink" => EntryKind::Symlink(raw.link_name.as_bytes().into()),
            "hardlink" => EntryKind::HardLink(raw.link_name.as_bytes().into()),
            "char" => EntryKind::CharDevice {
                major: raw.dev_major,
                minor: raw.dev_minor,
            },
            "block" => EntryKind::BlockDevice {
                major: raw.dev_major,
                minor: raw.dev_minor,
            },
            "fifo" => EntryKind::Fifo,
            other => {
                return Err(ReadError::Kind {
                    path: show(&raw.name),
                    kind: show(other),
                });
            }
        };
        self.put(&raw.name, meta, kind)?;
        Ok(())
    }

    fn put(
        &mut self,
        path: &str,
        meta: Meta,
        kind: EntryKind,
    ) -> Result<Option<NodeId>, ReadError> {
        let entry = Entry {
            path: path.as_bytes().into(),
            meta,
            kind,
        };
        let limits = &self.layer.limits.tree;
        self.tree.apply(entry, limits).map_err(ReadError::Apply)
    }

    fn begin_file(&mut self, raw: &RawEntry<'_>, meta: Meta) -> Result<(), ReadError> {
        let path = raw.name.clone().into_owned();
        let piece = Piece {
            at: (raw.offset, raw.inner_offset),
            file_offset: raw.chunk_offset,
            bytes: raw.chunk_size,
            digest: digest(&path, &raw.chunk_digest)?,
        };
        self.file = Some(File {
            digest: digest(&path, &raw.digest)?,
            path,
            meta,
            bytes: raw.size,
            pieces: if raw.size > 0 {
                vec![piece]
            } else {
                Vec::new()
            },
        });
        Ok(())
    }

    fn piece(&mut self, raw: &RawEntry<'_>) -> Result<(), ReadError> {
        let problem = |problem| ReadError::Entry {
            path: show(&raw.name),
            problem,
        };
        let file = self.file.as_mut();
        let file = file.filter(|file| raw.name.is_empty() || file.path == raw.name);
        let file = file.ok_or_else(|| problem("it is a chunk and does not follow its file"))?;
        if file.pieces.is_empty() {
            return Err(problem("it is a chunk of an empty file"));
        }
        file.pieces.push(Piece {
            at: (raw.offset, raw.inner_offset),
            file_offset: raw.chunk_offset,
            bytes: raw.chunk_size,
            digest: digest(&file.path, &raw.chunk_digest)?,
        });
        Ok(())
    }

    /// Puts the last file onto the tree, now that all its chunks are known.
    fn finish_file(&mut self) -> Result<(), ReadError> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let mut chunks = Vec::with_capacity(file.pieces.len());
        let ends = file.pieces.iter().skip(1).map(|piece| piece.file_offset);
        let ends = ends.chain([file.bytes]);
        let whole = (file.pieces.len() == 1).then_some(file.digest).flatten();
        let mut begin = 0;
        for (piece, end) in file.pieces.iter().zip(ends) {
            let problem = |problem| ReadError::Entry {
                path: show(&file.path),
                problem,
            };
            let bytes = end.checked_sub(piece.file_offset);
            let bytes = bytes.filter(|bytes| *bytes > 0 && piece.file_offset == begin);
            let bytes = bytes.ok_or_else(|| problem("its chunks are not one after another"))?;
            if piece.bytes != 0 && piece.bytes != bytes {
                return Err(problem("its chunks leave a gap, or overlap"));
            }
            let digest = piece.digest.or(whole).ok_or_else(|| ReadError::NoDigest {
                path: show(&file.path),
                offset: piece.file_offset,
            })?;
            chunks.push(self.chunk(&file.path, piece, bytes, digest)?);
            begin = end;
        }
        let first = file.pieces.first().map(|piece| piece.at);
        let kind = EntryKind::File {
            bytes: file.bytes,
            chunks: chunks.into(),
        };
        let node = self.put(&file.path, file.meta, kind)?;
        self.begins.extend(first.zip(node));
        Ok(())
    }

    fn chunk(
        &mut self,
        path: &str,
        piece: &Piece,
        bytes: u64,
        digest: Digest,
    ) -> Result<ChunkId, ReadError> {
        let problem = |problem| ReadError::Chunk {
            path: show(path),
            problem,
        };
        if !piece.file_offset.is_multiple_of(BLOCK_BYTES) {
            let what = "a chunk of it begins at no multiple of 4096 bytes; use another chunk size";
            return Err(problem(what));
        }
        let (offset, inner) = piece.at;
        let end = inner.checked_add(bytes);
        let end = end.and_then(|end| u32::try_from(end).ok());
        let end = end.filter(|end| *end <= self.layer.limits.extent_bytes_max);
        let end = end.ok_or_else(|| {
            problem("a chunk of it ends more than 32 MiB into its gzip member; use smaller chunks")
        })?;
        let bytes = u32::try_from(bytes).map_err(|_| problem("a chunk of it is too large"))?;
        let extent = self.extent(path, offset, end)?;
        let place = DeviceOffset(self.device_bytes);
        let blocks = blocks_of(bytes.into()) * BLOCK_BYTES;
        self.device_bytes = self.device_bytes.saturating_add(blocks);
        self.chunk_bytes_max = self.chunk_bytes_max.max(bytes);
        let chunk = Chunk {
            digest,
            extent,
            offset: ChunkOffset(inner),
            bytes,
            place,
        };
        self.tree.map.push_chunk(chunk).ok_or_else(too_many)
    }

    /// The member at `offset`, which has a chunk that ends at its decoded byte `end`.
    fn extent(&mut self, path: &str, offset: u64, end: u32) -> Result<ExtentId, ReadError> {
        if let Some(id) = self.extents.get(&offset) {
            if let Some(extent) = self.tree.map.extents.get_mut(id.index()) {
                extent.decoded_bytes = extent.decoded_bytes.max(end);
            }
            return Ok(*id);
        }
        if offset >= self.layer.toc_offset {
            return Err(ReadError::Chunk {
                path: show(path),
                problem: "a chunk of it lies behind the layer's content",
            });
        }
        let extent = Extent {
            blob: self.blob,
            offset: BlobOffset(offset),
            // Known when all chunks are.
            stored_bytes: 0,
            decoded_bytes: end,
            compression: Compression::Gzip,
        };
        let id = self.tree.map.push_extent(extent).ok_or_else(too_many)?;
        self.extents.insert(offset, id);
        Ok(id)
    }

    fn finish(self) -> Applied {
        for (offset, id) in &self.extents {
            let next = self.offsets.partition_point(|other| other <= offset);
            let end = self.offsets.get(next).copied();
            let end = end.unwrap_or(self.layer.toc_offset);
            if let Some(extent) = self.tree.map.extents.get_mut(id.index()) {
                extent.stored_bytes = stored_bytes(end - offset, extent.decoded_bytes);
            }
        }
        if let Some(blob) = self.tree.map.blobs.get_mut(self.blob.index()) {
            blob.device_bytes = self.device_bytes;
        }
        let landmark = self.landmark;
        let begins = self.begins.into_iter();
        let mut prefetch: Vec<_> = begins
            .filter(|(at, _)| landmark.is_some_and(|landmark| *at < landmark))
            .collect();
        prefetch.sort_unstable_by_key(|(at, _)| *at);
        Applied {
            prefetch: prefetch.into_iter().map(|(_, node)| node).collect(),
            toc_stored_bytes: 0,
            chunk_bytes_max: self.chunk_bytes_max,
        }
    }
}

/// How much of a member is needed to decode its beginning. What follows the last chunk in a member, headers of
/// what has no content, can be far more than the chunks: a million links, say.
fn stored_bytes(member_bytes: u64, decoded_bytes: u32) -> u32 {
    let decoded = u64::from(decoded_bytes);
    let enough = decoded + decoded / STORED_SLACK_DIVISOR + STORED_SLACK_BYTES;
    u32::try_from(member_bytes.min(enough)).unwrap_or(u32::MAX)
}
