//! Doing again what a record says.

use draught_rafs::blob::{BlobInfo, ChunkTable};
use draught_tree::{Blob, ChunkId, EntryKind, Limits, Tree};

use super::decode::{RecordError, read};
use crate::known::Known;
use crate::progress::LayerReport;

/// The state of a packer, to which a layer is added.
#[derive(Debug)]
pub(crate) struct Replay<'a> {
    pub(crate) tree: &'a mut Tree,
    pub(crate) known: &'a mut Known,
    pub(crate) limits: &'a Limits,
}

impl Replay<'_> {
    /// Adds the layer; after an error the state is of no more use.
    pub(crate) fn run(
        mut self,
        record: &[u8],
    ) -> Result<(LayerReport, Option<BlobInfo>), RecordError> {
        let (head, mut entries) = read(record)?;
        let chunks = self.tree.map.chunks.len() as u64;
        if u64::from(head.first_chunk) != chunks {
            return Err(RecordError::Parent {
                what: "chunks",
                expected: head.first_chunk.into(),
                got: chunks,
            });
        }
        let info = match head.blob {
            None => None,
            Some((info, table)) => {
                self.add_blob(&info, table)?;
                Some(info)
            }
        };
        self.tree.begin_layer();
        // Taken out, because sizes of chunks are asked for while entries are applied.
        let map = std::mem::take(&mut self.tree.map);
        let bytes_of = |id| map.chunk(id).map(|chunk| chunk.bytes);
        // Of the new chunks, those that a file has. The others are fences, which are not to be found again.
        let first = ChunkId(head.first_chunk).index();
        let mut is_content = vec![false; map.chunks.len().saturating_sub(first)];
        while let Some(entry) = entries.next_entry(bytes_of)? {
            if let EntryKind::File { chunks, .. } = &entry.kind {
                let new = chunks.iter().filter_map(|id| id.index().checked_sub(first));
                for at in new {
                    if let Some(is_content) = is_content.get_mut(at) {
                        *is_content = true;
                    }
                }
            }
            self.tree
                .apply(entry, self.limits)
                .map_err(|source| RecordError::Apply { source })?;
        }
        // Ascending: of chunks with the same content the last one counts, as when they were packed.
        let ids = (head.first_chunk..).map(ChunkId).zip(is_content);
        for (id, _) in ids.filter(|(_, is_content)| *is_content) {
            if let Some(chunk) = map.chunk(id) {
                self.known.insert(chunk.digest, id);
            }
        }
        self.tree.map = map;
        Ok((head.report, info))
    }

    fn add_blob(&mut self, info: &BlobInfo, table: ChunkTable) -> Result<(), RecordError> {
        let wrong = |what| RecordError::Value { what };
        let map = &mut self.tree.map;
        let id = map.push_blob(Blob {
            digest: info.digest.ok_or(wrong("blob"))?,
            stored_bytes: info.stored_bytes,
            device_bytes: info.device_bytes,
        });
        let id = id.ok_or(wrong("blob"))?;
        table
            .append_to(map, id)
            .ok_or(wrong("count of chunks"))
            .map(drop)
    }
}
