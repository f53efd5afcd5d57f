//! What of a map a tree needs.

use draught_tree::{BlobId, Chunk, ChunkId, ChunkMap, Extent, ExtentId, Kind, NodeId, Tree};

use crate::dictionary::Loaded;

/// What files of a tree have content in: blobs, and of those of dictionaries the chunks.
#[derive(Debug)]
pub(crate) struct Needed {
    pub(crate) blobs: Vec<bool>,
    /// The chunks of dictionaries, which are the first ones of the map.
    chunks: Vec<bool>,
}

/// A part of a map.
#[derive(Debug)]
pub(crate) struct Subset {
    pub(crate) map: ChunkMap,
    /// For each chunk of the part, its index in the chunk-info table of its blob.
    pub(crate) chunk_indexes: Vec<u32>,
    /// For each chunk of the whole, its id in the part.
    ids: Vec<Option<ChunkId>>,
}

impl Needed {
    /// What the files that are part of the tree need of the map.
    pub(crate) fn by(tree: &Tree, map: &ChunkMap, dictionaries: &Loaded) -> Self {
        let mut needed = Self {
            blobs: vec![false; map.blobs.len()],
            chunks: vec![false; dictionaries.chunks()],
        };
        for id in nodes(tree) {
            let node = tree.node(id);
            let Kind::File { chunks, .. } = &node.kind else {
                continue;
            };
            if node.names == 0 {
                continue;
            }
            for id in chunks {
                let blob = map.chunk(*id).and_then(|chunk| map.blob_of(chunk));
                if let Some(blob) = blob.and_then(|blob| needed.blobs.get_mut(blob.index())) {
                    *blob = true;
                }
                if let Some(chunk) = needed.chunks.get_mut(id.index()) {
                    *chunk = true;
                }
            }
        }
        needed
    }

    /// Whether that is everything.
    pub(crate) fn is_all(&self) -> bool {
        !self.blobs.contains(&false) && !self.chunks.contains(&false)
    }

    /// What the map holds of it: own blobs with all their chunks, those of dictionaries with some.
    pub(crate) fn of(&self, map: &ChunkMap, dictionaries: &Loaded) -> Subset {
        let mut new = ChunkMap::default();
        let mut blobs: Vec<Option<BlobId>> = Vec::with_capacity(map.blobs.len());
        for (blob, used) in map.blobs.iter().zip(&self.blobs) {
            blobs.push(used.then(|| new.push_blob(blob.clone())).flatten());
        }
        let mut extents: Vec<Option<ExtentId>> = vec![None; map.extents.len()];
        let mut ids = Vec::with_capacity(map.chunks.len());
        let mut chunk_indexes = Vec::new();
        // Of own blobs the map has all chunks, in the order of their tables.
        let mut next_index = vec![0_u32; map.blobs.len()];
        for (at, chunk) in map.chunks.iter().enumerate() {
            let blob = map.blob_of(chunk);
            let blob = blob.filter(|_| self.chunks.get(at).copied().unwrap_or(true));
            let known_index = dictionaries.chunk_indexes().get(at).copied();
            let id = blob.and_then(|old| {
                let blob = blobs.get(old.index()).copied().flatten()?;
                let slot = extents.get_mut(chunk.extent.index())?;
                let extent = match slot {
                    Some(extent) => *extent,
                    None => {
                        let extent = map.extent(chunk.extent)?.clone();
                        *slot.insert(new.push_extent(Extent { blob, ..extent })?)
                    }
                };
                let index = match known_index {
                    Some(index) => index,
                    None => {
                        let next = next_index.get_mut(old.index())?;
                        let index = *next;
                        *next = next.saturating_add(1);
                        index
                    }
                };
                chunk_indexes.push(index);
                new.push_chunk(Chunk {
                    extent,
                    ..chunk.clone()
                })
            });
            ids.push(id);
        }
        Subset {
            map: new,
            chunk_indexes,
            ids,
        }
    }
}

impl Subset {
    /// Gives the part to a tree whose chunks are those of the whole. Files that are no part of the tree lose
    /// what content they had. Gives the chunks' indexes.
    pub(crate) fn become_map_of(self, tree: &mut Tree) -> Vec<u32> {
        for id in nodes(tree) {
            if let Kind::File { chunks, .. } = &mut tree.node_mut(id).kind {
                let new = chunks
                    .iter()
                    .filter_map(|chunk| self.ids.get(chunk.index()).copied().flatten());
                *chunks = new.collect();
            }
        }
        tree.map = self.map;
        self.chunk_indexes
    }
}

fn nodes(tree: &Tree) -> impl Iterator<Item = NodeId> + use<> {
    (0..u32::try_from(tree.arena_len()).unwrap_or(u32::MAX)).map(NodeId)
}
