//! The blobs of an image: those of its repository, and those that are kept elsewhere.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use draught_digest::Digest;
use draught_oci::Descriptor;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use crate::backend::BlobBackend as _;
use crate::error::SourceError;
use crate::object::ObjectStore;
use crate::repository::{Repository, Source};
use crate::stream::BlobStream;

/// Where the blobs of an image are: in its repository, or in a backend that somebody named for it. Clones are
/// the same place.
///
/// With a backend, it is asked first, as most of the image's bytes are there. What it does not have comes
/// from the repository, and is then asked for there at once.
#[derive(Debug, Clone)]
pub struct Blobs {
    repository: Repository,
    backend: Option<Arc<Backend>>,
}

#[derive(Debug)]
struct Backend {
    store: ObjectStore,
    /// What is in the repository instead.
    elsewhere: Mutex<BTreeSet<Digest>>,
}

impl Blobs {
    /// Blobs of a repository, and of a backend if there is one.
    #[must_use]
    pub fn new(repository: Repository, backend: Option<ObjectStore>) -> Self {
        let backend = backend.map(|store| {
            let elsewhere = Mutex::default();
            Arc::new(Backend { store, elsewhere })
        });
        Self {
            repository,
            backend,
        }
    }

    /// Where manifests are.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Whether there is a backend.
    #[must_use]
    pub fn has_backend(&self) -> bool {
        self.backend.is_some()
    }

    /// Notes blobs that the repository has, as a manifest lists them.
    pub fn are_in_repository<'a>(&self, blobs: impl IntoIterator<Item = &'a Descriptor>) {
        if let Some(backend) = &self.backend {
            let mut elsewhere = backend.elsewhere.lock();
            elsewhere.extend(blobs.into_iter().map(|blob| blob.digest));
        }
    }

    /// The size in bytes of a blob that no manifest lists, as the backend has it.
    ///
    /// # Errors
    /// [`SourceError::NoSuchBlob`] when it isn't there, and those of asking.
    pub async fn bytes_elsewhere(&self, digest: &Digest) -> Result<u64, SourceError> {
        let found = match &self.backend {
            Some(backend) => backend.store.blob_bytes(digest).await?,
            None => None,
        };
        found.ok_or_else(|| SourceError::NoSuchBlob {
            what: self.label(),
            digest: *digest,
        })
    }

    /// A blob from its start to its end; digest and size are checked by the stream.
    ///
    /// # Errors
    /// Here or from the stream.
    pub async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream, SourceError> {
        let digest = &descriptor.digest;
        if let Some(backend) = self.backend(digest)
            && backend.store.has_blob(digest).await?
        {
            return backend.store.blob(descriptor).await;
        }
        self.repository.blob(descriptor).await
    }

    /// The backend, unless the blob is known to be in the repository.
    fn backend(&self, digest: &Digest) -> Option<&Backend> {
        let backend = self.backend.as_deref();
        backend.filter(|backend| !backend.elsewhere.lock().contains(digest))
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Bytes, SourceError> {
        let Some(backend) = self.backend(digest) else {
            return self.repository.read_range(digest, range).await;
        };
        let missing = match backend.store.read_range(digest, range.clone()).await {
            Err(error) if error.is_not_found() => error,
            result => return result,
        };
        match self.repository.read_range(digest, range).await {
            // Nobody has it: what the place says that should have it.
            Err(error) if error.is_not_found() => Err(missing),
            Ok(bytes) => {
                backend.elsewhere.lock().insert(*digest);
                Ok(bytes)
            }
            Err(error) => Err(error),
        }
    }
}

impl Source for Blobs {
    fn distrust(&self, blob: &Digest) {
        self.repository.distrust(blob);
    }

    fn label(&self) -> String {
        match &self.backend {
            Some(backend) => format!("{}, {}", self.repository.label(), backend.store.label()),
            None => self.repository.label(),
        }
    }

    fn read_range<'a>(
        &'a self,
        blob: &'a Digest,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>> {
        Box::pin(self.read(blob, range))
    }
}
