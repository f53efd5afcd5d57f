//! The steps from a manifest to a tree.

use std::ops::Range;

use draught_digest::{Algorithm, Digest};
use draught_oci::Manifest;
use draught_rafs::blob::BlobInfo;
use draught_rafs::bootstrap;
use draught_tree::{Compression, NodeId, Tree};

use crate::detect::{Format, detect};
use crate::layers::{LayersImport, Part};
use crate::metadata_layer::MetadataLayerError;
use crate::nydus::NydusImport;

/// What an image's metadata may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Stored bytes of the metadata of an image: the layer that holds it, or the tables of all layers. The
    /// largest that we know has some 40 MB.
    pub layer_bytes_max: u64,
    /// Decoded bytes of the metadata: 2^24 inodes with a chunk each have less than 4 GiB, and images
    /// in use some 100 MB.
    pub metadata_bytes_max: u64,
    /// What the metadata may ask for.
    pub bootstrap: bootstrap::Limits,
    /// What a layer with its own metadata may ask for.
    pub layer: draught_estargz::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layer_bytes_max: 512 << 20,
            metadata_bytes_max: 2 << 30,
            bootstrap: bootstrap::Limits::default(),
            layer: draught_estargz::Limits::default(),
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
    /// Find out how large these blobs are, which are no layers of the manifest; give each to
    /// [`Import::give_size`], then call [`Import::step`] again. It comes only after
    /// [`Import::with_blobs_elsewhere`].
    Sizes(Vec<Digest>),
    /// The image is open.
    Done(Box<Opened>),
}

/// An image that was read.
#[derive(Debug)]
pub struct Opened {
    /// The tree, with the map of all its chunks. Every blob of the map is a layer of the manifest, or one whose
    /// size was given.
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
    /// An eStargz image.
    Estargz(Estargz),
}

/// What only eStargz knows of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estargz {
    /// Stored size in bytes of the tables of contents of all layers.
    pub toc_stored_bytes: u64,
    /// Bytes of the largest chunk.
    pub chunk_bytes_max: u32,
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
    /// The metadata is too large.
    #[error("the image's metadata has {bytes} stored bytes, the limit is {limit}")]
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
    /// A layer's own metadata can't be read.
    #[error("layer {layer} can't be read lazily")]
    Layer {
        /// The layer.
        layer: Digest,
        /// Why not.
        #[source]
        source: Box<draught_estargz::ReadError>,
    },
    /// The metadata names a blob that the manifest doesn't, and nobody said that it may be elsewhere.
    #[error(
        "the image's metadata names blob {blob}, which is no layer of its manifest: name the place that has its \
         blobs with --blob-backend{}",
        said(backend.as_deref())
    )]
    ForeignBlob {
        /// The blob.
        blob: Digest,
        /// What the image says of where it is; see [`crate::BLOB_BACKEND`].
        backend: Option<String>,
    },
    /// Several parts are too much for one filesystem.
    #[error("its layers have more files or chunks together than one filesystem can hold")]
    TooMany,
    /// A chunk lies outside of its blob.
    #[error("the image's metadata has a chunk beyond the {bytes} bytes of blob {blob}")]
    BlobEnd {
        /// The blob.
        blob: Digest,
        /// Its size as the manifest has it, or as it was given.
        bytes: u64,
    },
}

/// Characters of what an image says of its backend that are repeated.
const BACKEND_CHARS_MAX: usize = 300;

/// What an image says of where its blobs are, if it is fit to be shown.
fn said(backend: Option<&str>) -> String {
    match backend {
        Some(text)
            if text.len() <= BACKEND_CHARS_MAX && text.chars().all(|c| c.is_ascii_graphic()) =>
        {
            format!(" (the image itself says {text}; go there only if you trust it)")
        }
        _ => String::new(),
    }
}

/// An image that is being opened.
#[derive(Debug)]
pub struct Import {
    source: Source,
    /// What the last step asked for.
    asked: Vec<Read>,
}

#[derive(Debug)]
enum Source {
    /// One layer has the metadata of all.
    Nydus(Box<NydusImport>),
    /// Every layer has its own.
    Estargz(LayersImport),
}

/// What an import does next.
pub(crate) enum Next {
    Read(Vec<Read>),
    Sizes(Vec<Digest>),
    Done(Box<Opened>),
}

impl Import {
    /// Begins with a verified manifest.
    ///
    /// # Errors
    /// [`ImportError::NotLazy`] and [`ImportError::TooLarge`].
    pub fn new(manifest: &Manifest, limits: &Limits) -> Result<Self, ImportError> {
        let source = match detect(manifest) {
            Format::Nydus { bootstrap, blobs } => {
                let import = NydusImport::new(*bootstrap, &blobs, limits)?;
                Source::Nydus(Box::new(import))
            }
            Format::Estargz { layers } => {
                let is_on_others = false;
                let parts = [Part {
                    layers,
                    is_on_others,
                }];
                return Ok(Self::of_parts(&parts, limits));
            }
            Format::Plain(plain) => {
                let why = plain.why_not_lazy();
                return Err(ImportError::NotLazy { why });
            }
            Format::Unsupported { why } => return Err(ImportError::NotLazy { why }),
        };
        Ok(Self {
            source,
            asked: Vec::new(),
        })
    }

    /// Begins with layers that have their own metadata, not necessarily all of an image, lowest first.
    ///
    /// One part on nothing becomes a tree as any image does. Otherwise each part is a directory of the tree, called
    /// `0`, `1`, … from the lowest up, for overlayfs to stack with what lies in between.
    #[must_use]
    pub fn of_parts(parts: &[Part], limits: &Limits) -> Self {
        Self {
            source: Source::Estargz(LayersImport::new(parts, limits)),
            asked: Vec::new(),
        }
    }

    /// Lets blobs be outside of the manifest: whoever drives the import knows a place that has them.
    #[must_use]
    pub fn with_blobs_elsewhere(mut self) -> Self {
        if let Source::Nydus(import) = &mut self.source {
            import.blobs_elsewhere = true;
        }
        self
    }

    /// Takes the size in bytes of a blob that is no layer of the manifest.
    pub fn give_size(&mut self, blob: &Digest, bytes: u64) {
        if let Source::Nydus(import) = &mut self.source {
            import.give_size(blob, bytes);
        }
    }

    /// What comes next. Call it first, and again when all that it asked for was given; asking again
    /// before that gives what is still missing.
    ///
    /// # Errors
    /// When the image can't be opened.
    pub fn step(&mut self) -> Result<Step, ImportError> {
        let next = match &mut self.source {
            Source::Nydus(import) => import.step()?,
            Source::Estargz(import) => import.step()?,
        };
        Ok(match next {
            Next::Read(reads) => {
                self.asked.clone_from(&reads);
                Step::Read(reads)
            }
            Next::Sizes(blobs) => Step::Sizes(blobs),
            Next::Done(opened) => Step::Done(opened),
        })
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
        match &mut self.source {
            Source::Nydus(import) => import.give(read, bytes),
            Source::Estargz(import) => import.give(read, &bytes),
        }
    }
}
