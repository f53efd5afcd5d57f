//! This crate is the converter: layers in, lazily readable images out, the same bytes every time.
//!
//! [`ImagePacker`] does the work for one image of one platform. Each layer is streamed once: one thread
//! reads, checks and decodes it, one parses the archive, applies it to the tree, and cuts and digests
//! files, some compress, one writes. Queues between them are bounded and buffers go round, so memory
//! does not depend on the image but for the tree's own. Which chunks are new, where batches and jobs
//! end and in which order they are written depends on the input alone: so do the bytes.
//!
//! [`convert()`] takes a whole image from one place to another: blobs first, the tag last.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod blocking;
mod bootstrap;
mod cache;
mod convert;
mod directory;
mod image;
mod layer;
mod options;
mod progress;
mod prune;
mod spool;

pub use bootstrap::{BootstrapLayer, FinishError};
pub use cache::{
    BuildCache, CACHE_LAYERS_DEFAULT, CACHE_LAYERS_MAX, CacheError, CacheHit, CacheKey,
    CacheLocation, CacheLocationError, CacheOptions, CacheReport, CacheUse, CachedLayer,
    RecordError,
};
pub use convert::{
    ConvertError, ConvertOptions, Converted, ConvertedImage, PlatformChoice, convert,
};
pub use directory::{Directory, DirectoryError};
pub use image::{ImagePacker, PackedBlob, PackedImage};
pub use layer::{LayerInput, PackLayerError};
pub use options::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, OptionsError, PackOptions};
pub use progress::{LayerReport, Progress};
pub use spool::Spooled;
