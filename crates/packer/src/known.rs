//! The chunks that an image has so far, by their content.

use std::collections::HashMap;

use draught_digest::Digest;
use draught_tree::{ChunkId, ChunkMap};

use crate::dictionary::Loaded;

/// The chunks that an image has so far: those of its dictionaries, and those of its own blobs.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) dictionaries: Loaded,
    own: HashMap<Digest, ChunkId>,
}

impl Known {
    /// Those of dictionaries, and none of its own.
    pub(crate) fn new(dictionaries: Loaded) -> Self {
        Self {
            dictionaries,
            own: HashMap::new(),
        }
    }

    /// The chunks with that content, those of dictionaries first. `map` has the chunks of all earlier blobs.
    pub(crate) fn find<'a>(
        &'a self,
        map: &'a ChunkMap,
        digest: &Digest,
        bytes: u32,
    ) -> impl Iterator<Item = ChunkId> + use<'a> {
        let own = self.own.get(digest).copied();
        self.dictionaries.find(map, digest, bytes).chain(own)
    }

    /// Adds a chunk of an own blob. A newer one takes the place of an older one with the same content.
    pub(crate) fn insert(&mut self, digest: Digest, id: ChunkId) {
        self.own.insert(digest, id);
    }
}
