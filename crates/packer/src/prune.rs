//! Blobs that nothing of the image needs any more.

use draught_tree::{BlobId, Chunk, ChunkId, ChunkMap, Extent, ExtentId, Kind, NodeId, Tree};

/// For each blob of the map, whether a file that is part of the tree has content in it.
pub(crate) fn used_blobs(tree: &Tree, map: &ChunkMap) -> Vec<bool> {
    let mut used = vec![false; map.blobs.len()];
    for id in nodes(tree) {
        let node = tree.node(id);
        let Kind::File { chunks, .. } = &node.kind else {
            continue;
        };
        if node.names == 0 {
            continue;
        }
        for chunk in chunks {
            let blob = map.chunk(*chunk).and_then(|chunk| map.blob_of(chunk));
            if let Some(used) = blob.and_then(|blob| used.get_mut(blob.index())) {
                *used = true;
            }
        }
    }
    used
}

fn nodes(tree: &Tree) -> impl Iterator<Item = NodeId> + use<> {
    (0..u32::try_from(tree.arena_len()).unwrap_or(u32::MAX)).map(NodeId)
}

/// Takes the blobs that are not used out of the map. Files that are no part of the tree lose what
/// content they had.
pub(crate) fn prune(tree: &mut Tree, used: &[bool]) {
    let (map, chunks) = subset(&tree.map, used);
    tree.map = map;
    renumber(tree, &chunks);
}

/// What the map holds of the used blobs alone, and the new id of each of its chunks.
pub(crate) fn subset(map: &ChunkMap, used: &[bool]) -> (ChunkMap, Vec<Option<ChunkId>>) {
    let mut new = ChunkMap::default();
    let mut blobs: Vec<Option<BlobId>> = Vec::with_capacity(map.blobs.len());
    for (blob, used) in map.blobs.iter().zip(used) {
        blobs.push(used.then(|| new.push_blob(blob.clone())).flatten());
    }
    let mut extents: Vec<Option<ExtentId>> = Vec::with_capacity(map.extents.len());
    for extent in &map.extents {
        let blob = blobs.get(extent.blob.index()).copied().flatten();
        extents.push(blob.and_then(|blob| {
            new.push_extent(Extent {
                blob,
                ..extent.clone()
            })
        }));
    }
    let mut chunks = Vec::with_capacity(map.chunks.len());
    for chunk in &map.chunks {
        let extent = extents.get(chunk.extent.index()).copied().flatten();
        chunks.push(extent.and_then(|extent| {
            new.push_chunk(Chunk {
                extent,
                ..chunk.clone()
            })
        }));
    }
    (new, chunks)
}

/// Gives the files of a tree the new ids of their chunks.
pub(crate) fn renumber(tree: &mut Tree, chunks: &[Option<ChunkId>]) {
    for id in nodes(tree) {
        if let Kind::File { chunks: list, .. } = &mut tree.node_mut(id).kind {
            let new = list
                .iter()
                .filter_map(|chunk| chunks.get(chunk.index()).copied().flatten());
            *list = new.collect();
        }
    }
}
