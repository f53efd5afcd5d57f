//! From paths to what a tree has there.

use draught_tree::{ChunkId, Kind, NodeId, Tree};

use crate::profile::Profile;

/// What a profile means for one tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The chunks in order of first touch, each once.
    pub chunks: Vec<ChunkId>,
    /// The files in order of first touch, each once.
    pub files: Vec<NodeId>,
    /// Touches of paths that the tree does not have as files.
    pub unknown_paths: usize,
    /// Bytes of the chunks.
    pub bytes: u64,
}

impl Profile {
    /// What this profile names of a tree.
    #[must_use]
    pub fn resolve(&self, tree: &Tree) -> Resolved {
        let mut resolved = Resolved::default();
        let mut has_chunk = vec![false; tree.map.chunks.len()];
        let mut has_file = vec![false; tree.arena_len()];
        for touch in &self.touches {
            let node = tree.lookup(&touch.path);
            let content = node.and_then(|node| match &tree.node(node).kind {
                Kind::File { chunks, .. } => Some((node, chunks)),
                _ => None,
            });
            let Some((node, chunks)) = content else {
                resolved.unknown_paths += 1;
                continue;
            };
            if let Some(has @ false) = has_file.get_mut(node.index()) {
                *has = true;
                resolved.files.push(node);
            }
            let end = touch.offset.saturating_add(touch.bytes);
            let mut at = 0_u64;
            for id in chunks {
                let Some(chunk) = tree.map.chunk(*id) else {
                    break;
                };
                let next = at.saturating_add(chunk.bytes.into());
                if at < end
                    && touch.offset < next
                    && let Some(has @ false) = has_chunk.get_mut(id.index())
                {
                    *has = true;
                    resolved.chunks.push(*id);
                    resolved.bytes = resolved.bytes.saturating_add(chunk.bytes.into());
                }
                at = next;
            }
        }
        resolved
    }
}
