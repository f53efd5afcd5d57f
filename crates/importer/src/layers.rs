//! The steps of an image whose layers have their own metadata.

use draught_digest::Digest;
use draught_estargz::{ReadError, Reader};
use draught_oci::Descriptor;
use draught_tree::{NodeId, Tree};

use crate::import::{Details, Estargz, ImportError, Limits, Next, Opened, Read};

/// An eStargz image that is being opened.
#[derive(Debug)]
pub(crate) struct LayersImport {
    /// Lowest first.
    readers: Vec<Reader>,
    bytes_max: u64,
}

impl LayersImport {
    /// Layers, lowest first, each with the digest of its table of contents.
    pub(crate) fn new(layers: &[(Descriptor, Digest)], limits: &Limits) -> Self {
        let reader = |(layer, toc): &(Descriptor, Digest)| {
            Reader::new(layer.digest, layer.size, *toc, &limits.layer)
        };
        Self {
            readers: layers.iter().map(reader).collect(),
            bytes_max: limits.layer_bytes_max,
        }
    }

    pub(crate) fn step(&mut self) -> Result<Next, ImportError> {
        let needs = self.readers.iter();
        let needs = needs.filter_map(|reader| Some((reader.blob(), reader.needs()?)));
        let mut reads: Vec<Read> = Vec::new();
        for (blob, range) in needs {
            let read = Read {
                blob,
                range,
                whole: false,
            };
            // A layer that is there twice is read once.
            if !reads.contains(&read) {
                reads.push(read);
            }
        }
        let held = self.readers.iter().map(Reader::bytes);
        let needed = reads.iter().map(|read| read.range.end - read.range.start);
        let bytes = held.chain(needed).fold(0, u64::saturating_add);
        if bytes > self.bytes_max {
            let limit = self.bytes_max;
            return Err(ImportError::TooLarge { bytes, limit });
        }
        if !reads.is_empty() {
            return Ok(Next::Read(reads));
        }
        self.finish().map(Box::new).map(Next::Done)
    }

    pub(crate) fn give(&mut self, read: &Read, bytes: &[u8]) -> Result<(), ImportError> {
        for reader in &mut self.readers {
            if reader.blob() == read.blob && reader.needs().as_ref() == Some(&read.range) {
                let given = reader.give(read.range.start, bytes);
                given.map_err(|source| failed(read.blob, source))?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Opened, ImportError> {
        let mut tree = Tree::new();
        let mut prefetch: Vec<NodeId> = Vec::new();
        let mut details = Estargz {
            toc_stored_bytes: 0,
            chunk_bytes_max: 0,
        };
        for reader in std::mem::take(&mut self.readers) {
            let layer = reader.blob();
            let applied = reader.apply(&mut tree);
            let applied = applied.map_err(|source| failed(layer, source))?;
            prefetch.extend(applied.prefetch);
            details.toc_stored_bytes += applied.toc_stored_bytes;
            details.chunk_bytes_max = details.chunk_bytes_max.max(applied.chunk_bytes_max);
        }
        // What upper layers hide is not wanted at all.
        prefetch.retain(|node| tree.node(*node).names > 0);
        tree.drop_unused_chunks();
        Ok(Opened {
            tree,
            prefetch,
            details: Details::Estargz(details),
        })
    }
}

fn failed(layer: Digest, source: ReadError) -> ImportError {
    let source = Box::new(source);
    ImportError::Layer { layer, source }
}
