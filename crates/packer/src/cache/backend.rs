//! The seam: what a place is that layers are cached in.

use std::fmt;
use std::io;

use draught_oci::{Descriptor, Manifest};
use draught_source::{BlobBackend, SourceError};
use futures_util::future::BoxFuture;

use super::key::CacheKey;

/// A layer as a cache has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedLayer {
    /// What it is.
    pub key: CacheKey,
    /// Its record: what the packer needs to go on as if it had packed the layer.
    pub record: Descriptor,
    /// The blob that it became; `None` when it brought nothing that lower layers did not have.
    pub blob: Option<Descriptor>,
}

/// A layer that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheHit {
    /// What the cache has.
    pub layer: CachedLayer,
    /// Its record, verified against its digest and not yet read.
    pub record: Vec<u8>,
}

/// A place that keeps converted layers from one conversion to the next: an LRU of so many layers, whose
/// order is part of what is kept.
///
/// A conversion asks for its layers from the lowest up until one is missing, makes sure that the blobs of
/// those that it found are in the image's repository, and packs the rest. Then it hands all layers of the
/// image to [`put`](Self::put), says with [`finish_image`](Self::finish_image) which of them make up the
/// image, and ends with [`commit`](Self::commit). Whatever fails here is told and never ends a conversion.
///
/// Blobs go through [`blobs`](Self::blobs), so that they can be mounted from repository to repository
/// without moving a byte.
pub trait BuildCache: Send + Sync + fmt::Debug {
    /// Its name for people, as they would write it.
    fn label(&self) -> String;

    /// Where its blobs are.
    fn blobs(&self) -> &dyn BlobBackend;

    /// The layer of that key; `None` when it isn't there. That its blob still is, the caller has to see.
    ///
    /// # Errors
    /// [`CacheError`]: the record can't be had. For the conversion, that is a miss.
    fn get<'a>(&'a self, key: &'a CacheKey) -> BoxFuture<'a, Result<Option<CacheHit>, CacheError>>;

    /// Keeps a layer, whose blob is in [`blobs`](Self::blobs). Several may be put at the same time.
    ///
    /// # Errors
    /// [`CacheError`]: then it is not kept.
    fn put<'a>(
        &'a self,
        layer: &'a CachedLayer,
        record: &'a [u8],
    ) -> BoxFuture<'a, Result<(), CacheError>>;

    /// Counts layers that were put as used: those of an image, lowest first, as far as all could be put. Is
    /// shown the image's manifest before it is written; a cache that lives in the image says so there.
    ///
    /// # Errors
    /// [`CacheError`]: then the manifest is as it was.
    fn finish_image<'a>(
        &'a self,
        layers: &'a [CachedLayer],
        manifest: &'a mut Manifest,
    ) -> BoxFuture<'a, Result<(), CacheError>>;

    /// Makes all that was used part of the cache, without losing what others put meanwhile. Gives how many
    /// layers it has now.
    ///
    /// # Errors
    /// [`CacheError`]: then it is as it was, or as others made it.
    fn commit(&self) -> BoxFuture<'_, Result<usize, CacheError>>;
}

/// Why a cache can't be used as it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// It can't be read.
    #[error("failed to read {what}")]
    Read {
        /// What of it.
        what: String,
        /// Why.
        source: SourceError,
    },
    /// It can't be written.
    #[error("failed to write {what}")]
    Write {
        /// What of it.
        what: String,
        /// Why.
        source: SourceError,
    },
    /// Something else is where it should be. It is left alone.
    #[error("{what} is no build cache and is left alone: {why}")]
    Foreign {
        /// What it is.
        what: String,
        /// How one sees that.
        why: String,
    },
    /// It is malformed.
    #[error("the build cache's {what} is malformed")]
    Damaged {
        /// What of it.
        what: String,
    },
    /// There can be no such cache.
    #[error("there can be no such build cache: {why}")]
    Unsupported {
        /// Why.
        why: &'static str,
    },
    /// Others write it all the time.
    #[error("others wrote the build cache each of the {tries} times that it was written")]
    Contended {
        /// How often it was tried.
        tries: u32,
    },
    /// The lock on a directory can't be had.
    #[error("failed to lock the build cache")]
    Lock {
        /// Why.
        source: io::Error,
    },
}
