//! The steps of layers that have their own metadata: all of an image, or some.

use draught_digest::Digest;
use draught_estargz::{ReadError, Reader};
use draught_oci::Descriptor;
use draught_tree::{NodeId, Tree};

use crate::import::{Details, Estargz, ImportError, Limits, Next, Opened, Read};

/// Layers, lowest first, that become one tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Each with the digest of its table of contents.
    pub layers: Vec<(Descriptor, Digest)>,
    /// Whether other layers lie below, which are not read here: what these hide of them is said as overlayfs
    /// wants it.
    pub is_on_others: bool,
}

/// Layers that are being opened.
#[derive(Debug)]
pub(crate) struct LayersImport {
    parts: Vec<PartReaders>,
    bytes_max: u64,
}

#[derive(Debug)]
struct PartReaders {
    is_on_others: bool,
    /// Lowest first.
    readers: Vec<Reader>,
}

impl LayersImport {
    pub(crate) fn new(parts: &[Part], limits: &Limits) -> Self {
        let reader = |(layer, toc): &(Descriptor, Digest)| {
            Reader::new(layer.digest, layer.size, *toc, &limits.layer)
        };
        let part = |part: &Part| PartReaders {
            is_on_others: part.is_on_others,
            readers: part.layers.iter().map(reader).collect(),
        };
        Self {
            parts: parts.iter().map(part).collect(),
            bytes_max: limits.layer_bytes_max,
        }
    }

    fn readers(&self) -> impl Iterator<Item = &Reader> {
        self.parts.iter().flat_map(|part| &part.readers)
    }

    pub(crate) fn step(&mut self) -> Result<Next, ImportError> {
        let needs = self.readers();
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
        let held = self.readers().map(Reader::bytes);
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
        for reader in self.parts.iter_mut().flat_map(|part| &mut part.readers) {
            if reader.blob() == read.blob && reader.needs().as_ref() == Some(&read.range) {
                let given = reader.give(read.range.start, bytes);
                given.map_err(|source| failed(read.blob, source))?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Opened, ImportError> {
        let mut details = Estargz {
            toc_stored_bytes: 0,
            chunk_bytes_max: 0,
        };
        let mut trees = Vec::new();
        let mut wanted: Vec<Vec<NodeId>> = Vec::new();
        let mut is_on_others = false;
        for part in std::mem::take(&mut self.parts) {
            is_on_others |= part.is_on_others;
            let mut tree = if part.is_on_others {
                Tree::on_others()
            } else {
                Tree::new()
            };
            let mut prefetch: Vec<NodeId> = Vec::new();
            for reader in part.readers {
                let layer = reader.blob();
                let applied = reader.apply(&mut tree);
                let applied = applied.map_err(|source| failed(layer, source))?;
                prefetch.extend(applied.prefetch);
                details.toc_stored_bytes += applied.toc_stored_bytes;
                details.chunk_bytes_max = details.chunk_bytes_max.max(applied.chunk_bytes_max);
            }
            // What upper layers hide is not wanted at all.
            prefetch.retain(|node| tree.node(*node).names > 0);
            tree.mark_hiding();
            tree.drop_unused_chunks();
            trees.push(tree);
            wanted.push(prefetch);
        }
        let (tree, prefetch) = match trees.pop() {
            Some(tree) if trees.is_empty() && !is_on_others => (tree, wanted.concat()),
            last => {
                trees.extend(last);
                let (tree, added) = Tree::beside(trees).ok_or(ImportError::TooMany)?;
                let moved = added.iter().zip(wanted);
                let moved = moved.flat_map(|(added, nodes)| {
                    nodes.into_iter().map(move |node| NodeId(node.0 + added))
                });
                (tree, moved.collect())
            }
        };
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
