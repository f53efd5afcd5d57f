//! The seam: a place for blobs, whatever it is.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use draught_digest::Digest;
use draught_oci::Descriptor;
use futures_util::future::BoxFuture;

use super::bucket::Bucket;
use super::directory::Directory;
use super::location::{BackendLocation, Kind};
use crate::backend::BlobBackend;
use crate::error::SourceError;
use crate::local;
use crate::payload::{Payload, Pushed};
use crate::registry::Client;
use crate::repository::Source;
use crate::stream::BlobStream;

/// Blobs in a bucket of an object store, or in a directory. Clones are the same place.
#[derive(Debug, Clone)]
pub struct ObjectStore {
    location: BackendLocation,
    force: bool,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Bucket(Arc<Bucket>),
    Directory(Directory),
}

impl ObjectStore {
    /// What a location names. Nobody is asked anything yet.
    ///
    /// # Errors
    /// When no request could be made there: see [`ObjectError`](super::ObjectError).
    pub fn open(location: &BackendLocation, client: &Client) -> Result<Self, SourceError> {
        let place = match location.kind() {
            Kind::Bucket(bucket) => Place::Bucket(Arc::new(Bucket::open(bucket, client)?)),
            Kind::Directory(path) => Place::Directory(Directory::new(path)),
        };
        Ok(Self {
            location: location.clone(),
            force: false,
            place,
        })
    }

    /// The same place, where blobs are sent even if they are there already: they count as not there.
    #[must_use]
    pub fn with_force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// Where it is.
    #[must_use]
    pub fn location(&self) -> &BackendLocation {
        &self.location
    }

    /// The size in bytes of a blob's object; `None` if there is none.
    ///
    /// # Errors
    /// When that can't be known.
    pub async fn blob_bytes(&self, digest: &Digest) -> Result<Option<u64>, SourceError> {
        match &self.place {
            Place::Bucket(bucket) => bucket.blob_bytes(digest).await,
            Place::Directory(directory) => {
                let (directory, digest) = (directory.clone(), *digest);
                let found = local::run(move || directory.blob(&digest)).await;
                match found {
                    Ok(blob) => Ok(Some(blob.bytes)),
                    Err(error) if error.is_not_found() => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Bytes, SourceError> {
        match &self.place {
            Place::Bucket(bucket) => bucket.read_range(digest, range).await,
            Place::Directory(directory) => {
                let (directory, digest) = (directory.clone(), *digest);
                local::run(move || directory.blob(&digest)?.read(&digest, &range)).await
            }
        }
    }

    async fn stream(&self, descriptor: &Descriptor) -> Result<BlobStream, SourceError> {
        match &self.place {
            Place::Bucket(bucket) => Ok(Arc::clone(bucket).stream(descriptor)),
            Place::Directory(directory) => {
                let (directory, digest) = (directory.clone(), descriptor.digest);
                local::run(move || directory.blob(&digest))
                    .await?
                    .stream(descriptor)
            }
        }
    }

    async fn put(&self, descriptor: &Descriptor, payload: &Payload) -> Result<Pushed, SourceError> {
        let got = payload.len().await?;
        if got != descriptor.size {
            return Err(SourceError::Size {
                digest: descriptor.digest,
                expected: descriptor.size,
                got,
            });
        }
        // An object of another size is none of ours, or was cut off by a tool that leaves such.
        if !self.force && self.blob_bytes(&descriptor.digest).await? == Some(descriptor.size) {
            return Ok(Pushed::Existed);
        }
        match &self.place {
            Place::Bucket(bucket) => bucket.put(descriptor, payload).await?,
            Place::Directory(directory) => {
                let (directory, descriptor) = (directory.clone(), descriptor.clone());
                let payload = payload.clone();
                local::run(move || directory.put(&descriptor, &payload)).await?;
            }
        }
        Ok(Pushed::Written)
    }
}

impl Source for ObjectStore {
    fn label(&self) -> String {
        self.location.to_string()
    }

    fn read_range<'a>(
        &'a self,
        blob: &'a Digest,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>> {
        Box::pin(self.read(blob, range))
    }
}

impl BlobBackend for ObjectStore {
    fn has_blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, SourceError>> {
        Box::pin(async move {
            // What is to be sent in any case counts as missing, or whoever asks would not send it.
            Ok(!self.force && self.blob_bytes(digest).await?.is_some())
        })
    }

    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BlobStream, SourceError>> {
        Box::pin(self.stream(descriptor))
    }

    fn put_blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        payload: &'a Payload,
    ) -> BoxFuture<'a, Result<Pushed, SourceError>> {
        Box::pin(self.put(descriptor, payload))
    }
}
