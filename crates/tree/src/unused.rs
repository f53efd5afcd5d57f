//! Chunks that no file has.

use crate::chunk::{Chunk, ChunkId, ExtentId};
use crate::node::{Kind, Tree};

impl Tree {
    /// Takes chunks that no file of the tree has, and extents without chunks, out of the map: what lower
    /// layers brought and upper ones hid. Ids of chunks and extents are other ones afterwards, blobs keep theirs.
    pub fn drop_unused_chunks(&mut self) {
        let mut used = vec![false; self.map.chunks.len()];
        for node in &mut self.nodes {
            let Kind::File { chunks, .. } = &mut node.kind else {
                continue;
            };
            if node.names == 0 {
                *chunks = Box::default();
            }
            for chunk in chunks.iter() {
                if let Some(used) = used.get_mut(chunk.index()) {
                    *used = true;
                }
            }
        }
        if used.iter().all(|used| *used) {
            return;
        }
        let mut extents: Vec<Option<ExtentId>> = vec![None; self.map.extents.len()];
        let mut renamed = Vec::with_capacity(used.len());
        let old = std::mem::take(&mut self.map);
        self.map.blobs = old.blobs;
        for (chunk, used) in old.chunks.into_iter().zip(used) {
            let index = chunk.extent.index();
            let Some((new, extent)) = extents.get_mut(index).zip(old.extents.get(index)) else {
                // It dangles, and is left out like one that nobody has.
                renamed.push(None);
                continue;
            };
            if !used {
                renamed.push(None);
                continue;
            }
            if new.is_none() {
                *new = self.map.push_extent(extent.clone());
            }
            let chunk = new.map(|extent| Chunk { extent, ..chunk });
            renamed.push(chunk.and_then(|chunk| self.map.push_chunk(chunk)));
        }
        self.rename_chunks(&renamed);
    }

    fn rename_chunks(&mut self, renamed: &[Option<ChunkId>]) {
        for node in &mut self.nodes {
            if let Kind::File { chunks, .. } = &mut node.kind {
                for chunk in chunks.iter_mut() {
                    // One without a new name dangled before, and dangles now.
                    let new = renamed.get(chunk.index()).copied().flatten();
                    *chunk = new.unwrap_or(ChunkId(u32::MAX));
                }
            }
        }
    }
}
