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

mod archive;
mod blocking;
mod bootstrap;
mod cache;
mod convert;
mod dictionary;
mod directory;
mod image;
mod import;
mod known;
mod layer;
mod options;
mod pack;
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
    ConvertError, ConvertOptions, Converted, ConvertedImage, PlatformChoice, Publish, convert,
};
pub use dictionary::{BlobOrigin, Dictionary, DictionaryError, DictionaryUse, UsedBlob};
pub use directory::{Directory, DirectoryError};
pub use draught_source::BlobBackend;
pub use image::{ImagePacker, PackedBlob, PackedImage};
pub use import::{OpenError, open_image};
pub use layer::{LayerInput, PackLayerError};
pub use options::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, OptionsError, PackOptions};
pub use pack::{
    ArchiveFormat, ArchiveOptions, BlobPlace, DictionaryAt, EstargzOptions, GZIP_LEVEL_DEFAULT,
    GZIP_LEVEL_MAX, Layer, LayerReader, ListedLayer, Output, PackError, Packed, Packer,
    StoredLayer, StreamLayer,
};
pub use progress::{LayerReport, Progress};
pub use spool::Spooled;
