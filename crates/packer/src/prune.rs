//! Blobs that nothing of the image needs any more.

use draught_tree::{ChunkId, ChunkMap, ExtentId, Kind, NodeId, Tree};

/// For each blob of the tree's map, whether a file that is part of the tree has content in it.
pub(crate) fn used_blobs(tree: &Tree) -> Vec<bool> {
    let mut used = vec![false; tree.map.blobs.len()];
    for id in nodes(tree) {
        let node = tree.node(id);
        let Kind::File { chunks, .. } = &node.kind else {
            continue;
        };
        if node.names == 0 {
            continue;
        }
        for chunk in chunks {
            let blob = tree
                .map
                .chunk(*chunk)
                .and_then(|chunk| tree.map.blob_of(chunk));
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
    let old = std::mem::take(&mut tree.map);
    let mut map = ChunkMap::default();
    let mut blobs = Vec::with_capacity(old.blobs.len());
    for (blob, used) in old.blobs.into_iter().zip(used) {
        blobs.push(used.then(|| map.push_blob(blob)).flatten());
    }
    let mut extents: Vec<Option<ExtentId>> = Vec::with_capacity(old.extents.len());
    for mut extent in old.extents {
        let blob = blobs.get(extent.blob.index()).copied().flatten();
        extents.push(blob.and_then(|blob| {
            extent.blob = blob;
            map.push_extent(extent)
        }));
    }
    let mut chunks: Vec<Option<ChunkId>> = Vec::with_capacity(old.chunks.len());
    for mut chunk in old.chunks {
        let extent = extents.get(chunk.extent.index()).copied().flatten();
        chunks.push(extent.and_then(|extent| {
            chunk.extent = extent;
            map.push_chunk(chunk)
        }));
    }
    tree.map = map;
    for id in nodes(tree) {
        if let Kind::File { chunks: list, .. } = &mut tree.node_mut(id).kind {
            let new = list
                .iter()
                .filter_map(|chunk| chunks.get(chunk.index()).copied().flatten());
            *list = new.collect();
        }
    }
}
