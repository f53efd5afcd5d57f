//! The tree of an image as the content of one layer.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use draught_codec::Decoder;
use draught_tree::{ChunkId, Entry, EntryKind, Extent, ExtentId, Kind, NodeId, Tree};

use crate::layer::{Content, PackLayerError, kind_of};

/// Gives the entries of a tree, names in byte order, with the content of its files from blobs that are
/// local and verified. Further names of a file are hard links to its first.
#[derive(Debug)]
pub(crate) struct TreeContent {
    tree: Arc<Tree>,
    /// In the order of the tree's map.
    blobs: Vec<File>,
    /// What is still to be visited, the next at the back.
    names: Vec<(Vec<u8>, NodeId)>,
    links: HashMap<NodeId, Box<[u8]>>,
    /// Chunks of the current file that are still to be read, the next at the back.
    chunks: Vec<ChunkId>,
    /// What is left of the current chunk.
    at: usize,
    chunk: Vec<u8>,
    decoder: Decoder,
    stored: Vec<u8>,
    /// The extent that was decoded last: several chunks may lie in it.
    extent: Option<(ExtentId, Vec<u8>)>,
}

impl TreeContent {
    /// The content of a tree whose blobs are these files.
    pub(crate) fn new(tree: Tree, blobs: Vec<File>) -> Self {
        let tree = Arc::new(tree);
        Self {
            names: vec![(Vec::new(), Tree::ROOT)],
            tree,
            blobs,
            links: HashMap::new(),
            chunks: Vec::new(),
            at: 0,
            chunk: Vec::new(),
            decoder: Decoder::new(),
            stored: Vec::new(),
            extent: None,
        }
    }

    fn kind(&mut self, path: &[u8], id: NodeId) -> EntryKind {
        let tree = Arc::clone(&self.tree);
        let node = tree.node(id);
        if node.names > 1 {
            let first = self.links.entry(id);
            if let std::collections::hash_map::Entry::Occupied(first) = &first {
                return EntryKind::HardLink(first.get().clone());
            }
            first.or_insert_with(|| path.into());
        }
        match &node.kind {
            Kind::Directory(children) => {
                for (name, child) in children.iter().rev() {
                    let mut full = path.to_vec();
                    if !full.is_empty() {
                        full.push(b'/');
                    }
                    full.extend_from_slice(name);
                    self.names.push((full, child.node));
                }
                EntryKind::Directory
            }
            Kind::File { bytes, chunks } => {
                self.chunks = chunks.iter().rev().copied().collect();
                EntryKind::File {
                    bytes: *bytes,
                    chunks: Box::default(),
                }
            }
            other => kind_of(other),
        }
    }

    /// Reads, decodes and verifies a chunk.
    fn load(&mut self, id: ChunkId) -> Result<(), PackLayerError> {
        let tree = Arc::clone(&self.tree);
        let missing = || PackLayerError::Chunk {
            chunk: id.0,
            source: io::ErrorKind::NotFound.into(),
        };
        let chunk = tree.map.chunk(id).ok_or_else(missing)?;
        let extent = tree.map.extent(chunk.extent).ok_or_else(missing)?;
        let corrupt = |source: io::Error| PackLayerError::Chunk {
            chunk: id.0,
            source,
        };
        let is_last = matches!(&self.extent, Some((last, _)) if *last == chunk.extent);
        if !is_last {
            let mut decoded = self
                .extent
                .take()
                .map(|(_, buffer)| buffer)
                .unwrap_or_default();
            self.decode(extent, &mut decoded).map_err(corrupt)?;
            self.extent = Some((chunk.extent, decoded));
        }
        let decoded = self.extent.as_ref().map(|(_, decoded)| decoded);
        let start = usize::try_from(chunk.offset.0).unwrap_or(usize::MAX);
        let end = start.saturating_add(chunk.bytes as usize);
        let data = decoded.and_then(|decoded| decoded.get(start..end));
        let data = data.ok_or_else(missing)?;
        if !chunk.digest.verifies(data) {
            let wrong = format!("its digest is not {}", chunk.digest);
            return Err(corrupt(io::Error::new(io::ErrorKind::InvalidData, wrong)));
        }
        self.chunk.clear();
        self.chunk.extend_from_slice(data);
        self.at = 0;
        Ok(())
    }

    fn decode(&mut self, extent: &Extent, decoded: &mut Vec<u8>) -> io::Result<()> {
        let blob = self.blobs.get(extent.blob.index());
        let blob = blob.ok_or(io::ErrorKind::NotFound)?;
        self.stored.clear();
        self.stored.resize(extent.stored_bytes as usize, 0);
        blob.read_exact_at(&mut self.stored, extent.offset.0)?;
        let (compression, bytes) = (extent.compression, extent.decoded_bytes);
        self.decoder
            .decode(compression, &self.stored, bytes, decoded)
            .map_err(io::Error::other)
    }
}

impl Content for TreeContent {
    fn next_entry(&mut self) -> Result<Option<Entry>, PackLayerError> {
        self.chunks.clear();
        self.chunk.clear();
        self.at = 0;
        let Some((path, id)) = self.names.pop() else {
            return Ok(None);
        };
        let kind = self.kind(&path, id);
        let meta = self.tree.node(id).meta.clone();
        Ok(Some(Entry {
            path: path.into_boxed_slice(),
            meta,
            kind,
        }))
    }

    fn read_data(&mut self, out: &mut [u8]) -> Result<usize, PackLayerError> {
        while self.at >= self.chunk.len() {
            match self.chunks.pop() {
                Some(id) => self.load(id)?,
                None => return Ok(0),
            }
        }
        let ready = self.chunk.get(self.at..).unwrap_or_default();
        let bytes = ready.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..bytes), ready.get(..bytes)) {
            to.copy_from_slice(from);
        }
        self.at += bytes;
        Ok(bytes)
    }
}
