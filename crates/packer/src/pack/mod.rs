//! Packing an image's layers: what build tools embed, and what whole images are converted with.

mod archives;
mod descriptors;
mod error;
mod layer;
mod lazy;
mod output;
mod packed;
mod packer;
mod push;
mod restore;

pub(crate) use descriptors::blob_descriptor;
pub use error::PackError;
use layer::is_estargz;
pub use layer::{Layer, LayerReader, StoredLayer, StreamLayer};
pub use output::{
    ArchiveFormat, ArchiveOptions, EstargzOptions, GZIP_LEVEL_DEFAULT, GZIP_LEVEL_MAX, Output,
};
pub use packed::{ListedLayer, Packed};
pub use packer::{BlobPlace, DictionaryAt, Packer};
pub(crate) use push::spool_blob;
