//! The seam over places that hold blobs, whatever else they hold.

use draught_digest::Digest;
use draught_oci::Descriptor;
use futures_util::future::BoxFuture;

use crate::error::SourceError;
use crate::payload::{Payload, Pushed};
use crate::repository::{Repository, Source};
use crate::stream::BlobStream;

/// A place that blobs are written to and read from by their digests: a repository, an object store, or
/// what a build tool has.
///
/// What it gives out is not believed: whoever reads verifies. What it is given, it must have when
/// [`put_blob`](Self::put_blob) returns, whole and for good, or not at all: a blob that is there is not
/// sent again.
pub trait BlobBackend: Source {
    /// Whether a blob is there, whole.
    ///
    /// # Errors
    /// When that can't be known. A blob that isn't there is no error.
    fn has_blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, SourceError>>;

    /// A blob from its start to its end; digest and size are checked by the stream.
    ///
    /// # Errors
    /// Here or from the stream.
    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BlobStream, SourceError>>;

    /// Makes a blob be there. Sends nothing when it is there already.
    ///
    /// # Errors
    /// [`SourceError::Size`] when the payload has another length than the descriptor; those of the place.
    fn put_blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        payload: &'a Payload,
    ) -> BoxFuture<'a, Result<Pushed, SourceError>>;

    /// The host and the name of the repository that this is, in a registry. Of two that have the same host,
    /// one can take a blob from the other without moving a byte: see [`mount_blob`](Self::mount_blob).
    fn in_registry(&self) -> Option<(&str, &str)> {
        None
    }

    /// Takes a blob from the repository of this name in the same registry. `false` when that can't be done:
    /// then it has to be sent.
    ///
    /// # Errors
    /// When it can't be known whether it was done.
    fn mount_blob<'a>(
        &'a self,
        _digest: &'a Digest,
        _from: &'a str,
    ) -> BoxFuture<'a, Result<bool, SourceError>> {
        Box::pin(async { Ok(false) })
    }

    /// How many blobs may be written at the same time; at least 1.
    fn writes_at_once(&self) -> usize {
        2
    }
}

impl BlobBackend for Repository {
    fn has_blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, SourceError>> {
        Box::pin(self.has_blob(digest))
    }

    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BlobStream, SourceError>> {
        Box::pin(self.blob(descriptor))
    }

    fn put_blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        payload: &'a Payload,
    ) -> BoxFuture<'a, Result<Pushed, SourceError>> {
        Box::pin(self.push_blob(descriptor, payload, &[]))
    }

    fn in_registry(&self) -> Option<(&str, &str)> {
        match self {
            Self::Registry(registry) => Some((registry.host(), registry.name())),
            Self::Layout(_) | Self::Archive(_) => None,
        }
    }

    fn mount_blob<'a>(
        &'a self,
        digest: &'a Digest,
        from: &'a str,
    ) -> BoxFuture<'a, Result<bool, SourceError>> {
        Box::pin(async move {
            match self {
                Self::Registry(registry) => registry.mount_blob(digest, from).await,
                Self::Layout(_) | Self::Archive(_) => Ok(false),
            }
        })
    }

    fn writes_at_once(&self) -> usize {
        match self {
            // One after the other: their order is that of the layers, and the file's bytes always the same.
            Self::Archive(_) => 1,
            Self::Registry(_) | Self::Layout(_) => 2,
        }
    }
}
