//! Layers that were converted before: kept in a directory, in a registry or in the image itself, so that
//! they are neither read nor packed again.
//!
//! [`BuildCache`] is the seam. A layer is found by its [`CacheKey`], which has everything in it that its
//! blob depends on, the layers below it included. Only an unbroken run of layers from the lowest up is of
//! use: the first one that is missing, and all above it, are packed. What goes on there is the same as if
//! all had been packed, because the record of a layer restores all that the packer knew.

mod backend;
mod directory;
mod document;
mod inline;
mod journal;
mod key;
mod location;
mod open;
mod record;
mod registry;
mod report;
mod session;
mod shelf;

pub use backend::{BuildCache, CacheError, CacheHit, CachedLayer};
pub(crate) use document::{cached_layer, forget};
pub(crate) use journal::Journal;
pub use key::CacheKey;
pub(crate) use key::WRITER_VERSION;
pub use location::{
    CACHE_LAYERS_DEFAULT, CACHE_LAYERS_MAX, CacheLocation, CacheLocationError, CacheOptions,
};
pub use record::RecordError;
pub(crate) use record::{Head, RecordWriter, Replay};
pub use report::{CacheReport, CacheUse};
pub(crate) use session::{Caches, Kept, chain, mountable};
