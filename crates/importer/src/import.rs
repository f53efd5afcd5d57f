//! The steps from a manifest to a tree.

use std::collections::BTreeMap;
use std::ops::Range;

use draught_digest::{Algorithm, Digest};
use draught_oci::{Descriptor, Manifest};
use draught_rafs::blob::BlobInfo;
use draught_rafs::bootstrap::{self, Need, Reader};
use draught_tree::{Compression, NodeId, Tree};

use crate::detect::{Format, detect};
use crate::metadata_layer::{MetadataLayerError, metadata_from_layer};

/// What an image's metadata may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Stored bytes of the layer with the metadata. The largest that we know has some 40 MB.
    pub layer_bytes_max: u64,
    /// Decoded bytes of the metadata: 2^24 inodes with a chunk each have less than 4 GiB, and images
    /// in use some 100 MB.
    pub metadata_bytes_max: u64,
    /// What the metadata may ask for.
    pub bootstrap: bootstrap::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layer_bytes_max: 512 << 20,
            metadata_bytes_max: 2 << 30,
            bootstrap: bootstrap::Limits::default(),
        }
    }
}

/// A piece of a blob that is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The blob, one of the manifest's layers.
    pub blob: Digest,
    /// Which of its stored bytes.
    pub range: Range<u64>,
    /// Whether that is all of it: whoever fetches it need not ask for a range.
    pub whole: bool,
}

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// Fetch all of these, give each to [`Import::give`], then call [`Import::step`] again.
    Read(Vec<Read>),
    /// The image is open.
    Done(Box<Opened>),
}

/// An image that was read.
#[derive(Debug)]
pub struct Opened {
    /// The tree, with the map of all its chunks. Every blob of the map is a layer of the manifest.
    pub tree: Tree,
    /// Files and directories that the image wants fetched first, in this order.
    pub prefetch: Vec<NodeId>,
    /// What only its format knows: for tools that show, check or rewrite images.
    pub details: Details,
}

/// What only a format knows of an image.
#[derive(Debug)]
pub enum Details {
    /// A nydus image.
    Nydus(Nydus),
}

/// What only nydus knows of an image.
#[derive(Debug)]
pub struct Nydus {
    /// The bootstrap, as it was in its layer.
    pub bootstrap: Vec<u8>,
    /// What it says of each blob of the map, in the same order.
    pub blobs: Vec<BlobInfo>,
    /// For every chunk of the map, its index in its blob's chunk-info table.
    pub chunk_indexes: Vec<u32>,
    /// The size in bytes that files are cut into.
    pub chunk_bytes: u32,
    /// What it says its chunks are compressed with.
    pub compression: Compression,
    /// What it says its chunks are digested with.
    pub digester: Algorithm,
}

/// Why an image can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It can't be mounted lazily.
    #[error("the image can't be mounted lazily: {why}")]
    NotLazy {
        /// Why, and what could be done about it.
        why: String,
    },
    /// The layer with the metadata is too large.
    #[error("the layer with the image's metadata has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// What it may have.
        limit: u64,
    },
    /// The bytes given are not those that were asked for.
    #[error("blob {blob}: {got} bytes were given for bytes {start} to {end}")]
    Length {
        /// The blob.
        blob: Digest,
        /// Where the range begins.
        start: u64,
        /// Where it ends.
        end: u64,
        /// How many bytes were given.
        got: usize,
    },
    /// A blob has other content than the manifest says.
    #[error("blob {blob} is corrupt: its bytes have the digest {got}")]
    Corrupt {
        /// The blob.
        blob: Digest,
        /// What its bytes have.
        got: Digest,
    },
    /// Bytes were given that nobody asked for.
    #[error("bytes {start} to {end} of blob {blob} were given and not asked for")]
    NotAsked {
        /// The blob.
        blob: Digest,
        /// Where the range begins.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// The layer with the metadata gives none.
    #[error("the layer {layer} gives no metadata")]
    MetadataLayer {
        /// The layer.
        layer: Digest,
        /// Why not.
        #[source]
        source: MetadataLayerError,
    },
    /// The metadata can't be read.
    #[error("the image's metadata can't be read")]
    Bootstrap(#[source] bootstrap::ReadError),
    /// The metadata names a blob that the manifest doesn't, so the image could lose it at any time.
    #[error("the image's metadata names blob {blob}, which is no layer of its manifest")]
    ForeignBlob {
        /// The blob.
        blob: Digest,
    },
    /// A chunk lies outside of its blob.
    #[error("the image's metadata has a chunk beyond the {bytes} bytes of blob {blob}")]
    BlobEnd {
        /// The blob.
        blob: Digest,
        /// Its size as the manifest has it.
        bytes: u64,
    },
}

/// An image that is being opened.
#[derive(Debug)]
pub struct Import {
    layer: Descriptor,
    blobs: BTreeMap<Digest, u64>,
    limits: Limits,
    bootstrap: Option<Vec<u8>>,
    /// What the last step asked for.
    asked: Vec<Read>,
    given: BTreeMap<(Digest, u64), Vec<u8>>,
}

impl Import {
    /// Begins with a verified manifest.
    ///
    /// # Errors
    /// [`ImportError::NotLazy`] and [`ImportError::TooLarge`].
    pub fn new(manifest: &Manifest, limits: &Limits) -> Result<Self, ImportError> {
        let (layer, blobs) = match detect(manifest) {
            Format::Nydus { bootstrap, blobs } => (*bootstrap, blobs),
            Format::Plain(plain) => {
                let kind = plain.lazy_format.unwrap_or("tar");
                let why = format!("its layers are {kind} archives; convert it first");
                return Err(ImportError::NotLazy { why });
            }
            Format::Unsupported { why } => return Err(ImportError::NotLazy { why }),
        };
        if layer.size > limits.layer_bytes_max {
            return Err(ImportError::TooLarge {
                bytes: layer.size,
                limit: limits.layer_bytes_max,
            });
        }
        Ok(Self {
            blobs: blobs.iter().map(|blob| (blob.digest, blob.size)).collect(),
            layer,
            limits: *limits,
            bootstrap: None,
            asked: Vec::new(),
            given: BTreeMap::new(),
        })
    }

    /// What comes next. Call it first, and again when all that it asked for was given; asking again
    /// before that gives what is still missing.
    ///
    /// # Errors
    /// When the image can't be opened.
    pub fn step(&mut self) -> Result<Step, ImportError> {
        let Some(bytes) = &self.bootstrap else {
            let read = Read {
                blob: self.layer.digest,
                range: 0..self.layer.size,
                whole: true,
            };
            self.asked = vec![read];
            return Ok(Step::Read(self.asked.clone()));
        };
        let mut reader =
            Reader::open(bytes, None, &self.limits.bootstrap).map_err(ImportError::Bootstrap)?;
        for info in reader.blobs() {
            let blob = info.digest.filter(|blob| !self.blobs.contains_key(blob));
            if let Some(blob) = blob {
                return Err(ImportError::ForeignBlob { blob });
            }
        }
        let missing = reader
            .needs()
            .iter()
            .filter(|need| !self.given.contains_key(&key(need)));
        let missing = missing.map(|need| Read {
            blob: need.blob,
            range: need.range.clone(),
            whole: false,
        });
        let missing: Vec<_> = missing.collect();
        if !missing.is_empty() {
            self.asked.clone_from(&missing);
            return Ok(Step::Read(missing));
        }
        for need in reader.needs().to_vec() {
            let bytes = self.given.remove(&key(&need)).unwrap_or_default();
            reader.give(&need, bytes).map_err(ImportError::Bootstrap)?;
        }
        let read = reader.finish().map_err(ImportError::Bootstrap)?;
        self.opened(read).map(Box::new).map(Step::Done)
    }

    /// Takes what a [`Read`] asked for.
    ///
    /// # Errors
    /// When it is not what was asked for. Whoever drives the import may try another source and give again.
    pub fn give(&mut self, read: &Read, bytes: Vec<u8>) -> Result<(), ImportError> {
        let (blob, Range { start, end }) = (read.blob, read.range.clone());
        let got = bytes.len();
        if u64::try_from(got).ok() != end.checked_sub(start) {
            return Err(ImportError::Length {
                blob,
                start,
                end,
                got,
            });
        }
        if !self.asked.contains(read) {
            return Err(ImportError::NotAsked { blob, start, end });
        }
        if self.bootstrap.is_some() {
            self.given.insert((blob, start), bytes);
            return Ok(());
        }
        let digest = blob.algorithm().digest(&bytes);
        if digest != blob {
            return Err(ImportError::Corrupt { blob, got: digest });
        }
        let bootstrap = metadata_from_layer(&bytes, self.limits.metadata_bytes_max);
        let layer = blob;
        let bootstrap = bootstrap.map_err(|source| ImportError::MetadataLayer { layer, source })?;
        self.bootstrap = Some(bootstrap);
        Ok(())
    }

    fn opened(&mut self, read: bootstrap::Bootstrap) -> Result<Opened, ImportError> {
        let mut tree = read.tree;
        for blob in &mut tree.map.blobs {
            // Some bootstraps know no more than the size of the data.
            if let Some(size) = self.blobs.get(&blob.digest) {
                blob.stored_bytes = *size;
            }
        }
        for extent in &tree.map.extents {
            let Some(blob) = tree.map.blob(extent.blob) else {
                continue;
            };
            let end = extent.offset.0.saturating_add(extent.stored_bytes.into());
            if end > blob.stored_bytes {
                return Err(ImportError::BlobEnd {
                    blob: blob.digest,
                    bytes: blob.stored_bytes,
                });
            }
        }
        Ok(Opened {
            tree,
            prefetch: read.prefetch,
            details: Details::Nydus(Nydus {
                bootstrap: self.bootstrap.take().unwrap_or_default(),
                blobs: read.blobs,
                chunk_indexes: read.chunk_indexes,
                chunk_bytes: read.chunk_bytes,
                compression: read.compression,
                digester: read.digester,
            }),
        })
    }
}

fn key(need: &Need) -> (Digest, u64) {
    (need.blob, need.range.start)
}
