//! Chunk dictionaries: images whose chunks are not stored again.

use std::sync::Arc;

use draught_digest::{Algorithm, Digest};
use draught_importer::{Details, Opened};
use draught_rafs::blob::BlobInfo;
use draught_tree::{ChunkId, ChunkMap};

/// The chunks of an image, for others to point at instead of storing them again.
///
/// An image that is packed with a dictionary consists of its own blobs and of those of the dictionary that
/// it uses, so its repository must have these too. Chunks are found by digest and length: sizes of chunks,
/// compression and batches may be others than the image's. The way of digesting may not.
///
/// Memory: 96 bytes for each chunk of a dictionary, and 96 more for each in every [`ImagePacker`] that uses
/// it, for as long as they live; 20 more while a bootstrap is written. Measured: 4 million chunks, 850 MB.
///
/// [`ImagePacker`]: crate::ImagePacker
#[derive(Debug, PartialEq, Eq)]
pub struct Dictionary {
    identity: Digest,
    map: ChunkMap,
    blobs: Vec<BlobInfo>,
    chunk_indexes: Vec<u32>,
    /// Sorted by digest, and of the same digest by number.
    by_digest: Vec<ChunkId>,
}

/// Why something is no dictionary.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DictionaryError {
    /// It has another format.
    #[error(
        "the dictionary is no nydus image: others can't point at chunks of its layers; convert it and name \
         what it became"
    )]
    Format,
    /// It has chunks, and none is digested as those of the image.
    #[error(
        "the dictionary {dictionary} is of no use: its chunks are digested with {}, those of the image \
         with {}, so none could be found; choose the digest of the dictionary",
        theirs.name(), ours.name()
    )]
    Digester {
        /// The dictionary's identity.
        dictionary: Digest,
        /// How the dictionary's chunks are digested.
        theirs: Algorithm,
        /// How the image's are.
        ours: Algorithm,
    },
    /// What is said of its blobs and chunks does not fit together.
    #[error("the dictionary can't be: {problem}")]
    Map {
        /// What is wrong.
        problem: &'static str,
    },
}

/// How much of a dictionary an image could use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DictionaryUse {
    /// Chunks that can be found: not those that are longer than the image's chunks, nor those that an
    /// earlier dictionary has too.
    pub chunks: u64,
    /// Their decoded bytes.
    pub bytes: u64,
}

/// Where a blob of an image comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobOrigin {
    /// It was made from the layer of that number, from 0.
    Layer(usize),
    /// It is one of the dictionary of that number, from 0.
    Dictionary(usize),
}

/// A blob that an image consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedBlob {
    /// The digest under which a source has it.
    pub digest: Digest,
    /// Size in bytes of the whole blob.
    pub stored_bytes: u64,
    /// What the bootstrap says of it: of a dictionary's blob, what that one's bootstrap said.
    pub info: BlobInfo,
    /// Where it comes from.
    pub origin: BlobOrigin,
}

impl Dictionary {
    /// The dictionary that an image is. `identity` is a digest that determines it: that of its manifest.
    ///
    /// # Errors
    /// [`DictionaryError::Format`] unless it is a nydus image.
    pub fn of_image(identity: Digest, image: Opened) -> Result<Self, DictionaryError> {
        let Details::Nydus(nydus) = image.details else {
            return Err(DictionaryError::Format);
        };
        Self::new(identity, image.tree.map, nydus.blobs, nydus.chunk_indexes)
    }

    /// A dictionary of the chunks of a map. `identity` is a digest that determines all of it; `blobs` says
    /// what a bootstrap is to say of each blob of the map, and `chunk_indexes` has for each chunk its index
    /// in the chunk-info table of its blob.
    ///
    /// # Errors
    /// [`DictionaryError::Map`] when they don't fit together.
    pub fn new(
        identity: Digest,
        mut map: ChunkMap,
        blobs: Vec<BlobInfo>,
        mut chunk_indexes: Vec<u32>,
    ) -> Result<Self, DictionaryError> {
        check(&map, &blobs, &chunk_indexes).map_err(|problem| DictionaryError::Map { problem })?;
        map.chunks.shrink_to_fit();
        map.extents.shrink_to_fit();
        chunk_indexes.shrink_to_fit();
        let by_digest = by_digest(&map);
        Ok(Self {
            identity,
            map,
            blobs,
            chunk_indexes,
            by_digest,
        })
    }

    /// What determines it.
    #[must_use]
    pub fn identity(&self) -> Digest {
        self.identity
    }

    /// How many chunks it has.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.map.chunks.len()
    }

    /// Checks that chunks digested like this can be found in it at all.
    pub(crate) fn check_digester(&self, ours: Algorithm) -> Result<(), DictionaryError> {
        // Ways of digesting come before digests in their order.
        let ends = [self.by_digest.first(), self.by_digest.last()];
        let mut ends = ends.into_iter().flatten().filter_map(|id| {
            let chunk = self.map.chunk(*id)?;
            Some(chunk.digest.algorithm())
        });
        let Some(theirs) = ends.next() else {
            return Ok(());
        };
        if theirs == ours || ends.any(|theirs| theirs == ours) {
            return Ok(());
        }
        Err(DictionaryError::Digester {
            dictionary: self.identity,
            theirs,
            ours,
        })
    }
}

fn check(map: &ChunkMap, blobs: &[BlobInfo], indexes: &[u32]) -> Result<(), &'static str> {
    if blobs.len() != map.blobs.len() || indexes.len() != map.chunks.len() {
        return Err("not one fact for each of its blobs and chunks");
    }
    for (chunk, index) in map.chunks.iter().zip(indexes) {
        let blob = map.blob_of(chunk).ok_or("a chunk has no extent")?;
        let info = blobs.get(blob.index()).ok_or("an extent has no blob")?;
        if info.digester != chunk.digest.algorithm() {
            return Err("a chunk has a digest of another algorithm than its blob");
        }
        if *index >= info.chunks {
            return Err("a chunk has an index that its blob's table has not");
        }
    }
    Ok(())
}

/// The chunks of a map, sorted by digest, and of the same digest by number.
fn by_digest(map: &ChunkMap) -> Vec<ChunkId> {
    // The beginnings of digests lie beside each other: with millions of chunks, looking each digest up where
    // it is takes several times as long.
    let mut order: Vec<(Algorithm, u64, ChunkId)> = Vec::with_capacity(map.chunks.len());
    for (id, chunk) in (0..).map(ChunkId).zip(&map.chunks) {
        let digest = &chunk.digest;
        let begin = digest.as_bytes().first_chunk().copied();
        let begin = u64::from_be_bytes(begin.unwrap_or_default());
        order.push((digest.algorithm(), begin, id));
    }
    order.sort_unstable_by(|one, other| {
        let digest = |id: ChunkId| map.chunk(id).map(|chunk| chunk.digest);
        (one.0, one.1)
            .cmp(&(other.0, other.1))
            .then_with(|| digest(one.2).cmp(&digest(other.2)))
            .then_with(|| one.2.cmp(&other.2))
    });
    let mut ids = Vec::with_capacity(order.len());
    ids.extend(order.iter().map(|(_, _, id)| *id));
    ids
}

/// The dictionaries of an image, and what of the image's map is theirs: its first blobs, extents and chunks.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Of each dictionary the chunks that can be found, by digest.
    shelves: Vec<Vec<ChunkId>>,
    /// For each of their chunks, its index in the chunk-info table of its blob.
    chunk_indexes: Vec<u32>,
    /// How much there is of each.
    uses: Vec<DictionaryUse>,
}

/// Copies of the same content in one dictionary that are looked at, at most: it has several where files
/// could not be read in order otherwise (see `order.rs`), which is rare, and a forged one has many.
const COPIES_MAX: usize = 8;

impl Loaded {
    /// Puts what can be found of each dictionary into the map, which is empty; `None` when it can't hold so much.
    pub(crate) fn load(
        dictionaries: &[Arc<Dictionary>],
        digester: Algorithm,
        chunk_bytes: u32,
        map: &mut ChunkMap,
    ) -> Option<(Self, Vec<UsedBlob>)> {
        let mut loaded = Self::default();
        let mut blobs = Vec::new();
        for (number, dictionary) in dictionaries.iter().enumerate() {
            let chunks = dictionary.map.chunks.iter();
            let wanted = chunks.map(|chunk| {
                chunk.digest.algorithm() == digester
                    && chunk.bytes <= chunk_bytes
                    && loaded
                        .find(map, &chunk.digest, chunk.bytes)
                        .next()
                        .is_none()
            });
            let wanted: Vec<bool> = wanted.collect();
            loaded.add(number, dictionary, &wanted, chunk_bytes, map, &mut blobs)?;
        }
        Some((loaded, blobs))
    }

    /// How many chunks at the beginning of the map are those of dictionaries.
    pub(crate) fn chunks(&self) -> usize {
        self.chunk_indexes.len()
    }

    /// For each of them, its index in the chunk-info table of its blob.
    pub(crate) fn chunk_indexes(&self) -> &[u32] {
        &self.chunk_indexes
    }

    /// How much there is of each dictionary.
    pub(crate) fn uses(&self) -> &[DictionaryUse] {
        &self.uses
    }

    /// The chunks with that content: those of the first dictionary first.
    pub(crate) fn find<'a>(
        &'a self,
        map: &'a ChunkMap,
        digest: &Digest,
        bytes: u32,
    ) -> impl Iterator<Item = ChunkId> + use<'a> {
        let digest = *digest;
        let of = move |id: &ChunkId| map.chunk(*id).map(|chunk| chunk.digest);
        self.shelves.iter().flat_map(move |shelf| {
            let first = shelf.partition_point(|id| of(id) < Some(digest));
            let copies = shelf.get(first..).unwrap_or_default().iter();
            copies
                .take(COPIES_MAX)
                .take_while(move |id| of(id) == Some(digest))
                .filter(move |id| map.chunk(**id).is_some_and(|chunk| chunk.bytes == bytes))
                .copied()
        })
    }

    /// Adds a dictionary; `None` when the map can't hold so much.
    fn add(
        &mut self,
        number: usize,
        dictionary: &Dictionary,
        wanted: &[bool],
        chunk_bytes: u32,
        map: &mut ChunkMap,
        blobs: &mut Vec<UsedBlob>,
    ) -> Option<()> {
        let from = &dictionary.map;
        let count = wanted.iter().filter(|wanted| **wanted).count();
        map.chunks.reserve_exact(count);
        map.extents.reserve_exact(count.min(from.extents.len()));
        self.chunk_indexes.reserve_exact(count);
        let mut blob_ids = vec![None; from.blobs.len()];
        let mut extent_ids = vec![None; from.extents.len()];
        let mut chunk_ids = vec![None; from.chunks.len()];
        let mut used = DictionaryUse::default();
        let chunks = from.chunks.iter().zip(&dictionary.chunk_indexes);
        let slots = chunk_ids.iter_mut().zip(wanted);
        for ((chunk, index), (slot, _)) in chunks.zip(slots).filter(|(_, (_, wanted))| **wanted) {
            let extent_id = extent_ids.get_mut(chunk.extent.index())?;
            let extent = match extent_id {
                Some(extent) => *extent,
                None => {
                    let mut extent = from.extent(chunk.extent)?.clone();
                    let blob_id = blob_ids.get_mut(extent.blob.index())?;
                    extent.blob = match blob_id {
                        Some(blob) => *blob,
                        None => {
                            let blob = from.blob(extent.blob)?;
                            let info = dictionary.blobs.get(extent.blob.index())?;
                            blobs.push(UsedBlob {
                                digest: blob.digest,
                                stored_bytes: blob.stored_bytes,
                                info: BlobInfo {
                                    // Readers want that of the image in all blobs.
                                    chunk_bytes_max: chunk_bytes,
                                    ..info.clone()
                                },
                                origin: BlobOrigin::Dictionary(number),
                            });
                            *blob_id.insert(map.push_blob(blob.clone())?)
                        }
                    };
                    *extent_id.insert(map.push_extent(extent)?)
                }
            };
            let id = map.push_chunk(draught_tree::Chunk {
                extent,
                ..chunk.clone()
            })?;
            *slot = Some(id);
            self.chunk_indexes.push(*index);
            used.chunks += 1;
            used.bytes += u64::from(chunk.bytes);
        }
        let by_digest = dictionary.by_digest.iter();
        let shelf = by_digest.filter_map(|id| chunk_ids.get(id.index()).copied().flatten());
        let mut shelf: Vec<ChunkId> = shelf.collect();
        shelf.shrink_to_fit();
        self.shelves.push(shelf);
        self.uses.push(used);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use draught_tree::{Chunk, Extent};

    use super::*;

    #[test]
    fn a_chunk_takes_the_memory_that_is_stated() {
        // A chunk, an extent, the chunk's index, and its number in the order of digests; in the dictionary
        // and in the packer, both of which hold them in lists of exactly that length.
        let bytes = size_of::<Chunk>() + size_of::<Extent>() + 4 + size_of::<ChunkId>();
        assert_eq!(bytes, 96);
    }
}
