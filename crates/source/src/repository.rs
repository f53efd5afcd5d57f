//! One seam over all places that images are in.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use draught_digest::Digest;
use draught_oci::{Any, Content, Descriptor, Document, Limits, Location, Reference, Selector};
use futures_util::future::BoxFuture;

use crate::archive::Archive;
use crate::error::SourceError;
use crate::layout::Layout;
use crate::listing::Listing;
use crate::local;
use crate::payload::{Payload, Pushed};
use crate::registry::{Client, RegistryRepository};
use crate::stream::BlobStream;

/// The tag that is written when none was named.
const DEFAULT_TAG: &str = "latest";

/// Where a blob can be read from, a range at a time: what a lazily read device needs, and no more.
pub trait Source: Send + Sync + fmt::Debug {
    /// Its name for people.
    fn label(&self) -> String;

    /// Reads a range of a blob: all of it or an error, in one try. The bytes are not verified.
    ///
    /// # Errors
    /// [`SourceError::class`] says whether to try again, to try elsewhere, or to give up.
    fn read_range<'a>(
        &'a self,
        blob: &'a Digest,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>>;

    /// Told when what was read of a blob turned out not to be the blob's: whoever has a choice reads it from
    /// somewhere else next time.
    fn distrust(&self, _blob: &Digest) {}
}

/// A repository of a registry, an OCI layout, or an image in a docker archive. Clones are the same place.
#[derive(Debug, Clone)]
pub enum Repository {
    /// In a registry.
    Registry(RegistryRepository),
    /// A directory.
    Layout(Layout),
    /// A file.
    Archive(Archive),
}

impl Client {
    /// Opens what a location names, to read: where it is and which image in it.
    ///
    /// # Errors
    /// When a local one isn't there or isn't what it should be. A registry is not asked anything yet.
    pub async fn open(&self, location: &Location) -> Result<(Repository, Selector), SourceError> {
        match location.clone() {
            Location::Registry(reference) => {
                let repository = self.registry(reference.host(), reference.repository())?;
                Ok((Repository::Registry(repository), reference.selector()))
            }
            Location::OciLayout { dir, selector } => {
                local::run(move || {
                    let layout = Layout::open(&dir)?;
                    let selector = match selector {
                        Some(selector) => selector,
                        None => layout.only()?,
                    };
                    Ok((Repository::Layout(layout), selector))
                })
                .await
            }
            Location::DockerArchive { file, reference } => {
                let scratch_dir = self.settings().scratch_dir.clone();
                local::run(move || {
                    let archive = Archive::open(&file, reference.as_ref(), &scratch_dir)?;
                    let selector = archive.only()?;
                    Ok((Repository::Archive(archive), selector))
                })
                .await
            }
            Location::Directory { .. } => Err(SourceError::Unsupported {
                what: "reading manifests and blobs",
                kind: "a root file system (dir:)",
            }),
        }
    }

    /// Opens what a location names, to write: where it is and under which tag. A layout that isn't there is
    /// made; an archive replaces the one that is there once something in it has a tag.
    ///
    /// # Errors
    /// When a local one can't be written, and for locations that can't be written to.
    pub async fn create(&self, location: &Location) -> Result<(Repository, String), SourceError> {
        let tag = |selector| match selector {
            Selector::Tag(tag) => Ok(tag),
            Selector::Digest(_) => Err(SourceError::Unsupported {
                what: "choosing the digest of what is written (name a tag instead)",
                kind: "a destination",
            }),
        };
        match location.clone() {
            Location::Registry(reference) => {
                let repository = self.registry(reference.host(), reference.repository())?;
                Ok((Repository::Registry(repository), tag(reference.selector())?))
            }
            Location::OciLayout { dir, selector } => {
                let tag = selector.map_or_else(|| Ok(DEFAULT_TAG.to_owned()), tag)?;
                let layout = local::run(move || Layout::create(&dir)).await?;
                Ok((Repository::Layout(layout), tag))
            }
            Location::DockerArchive { file, reference } => {
                let selector = reference.as_ref().map(Reference::selector);
                let tag = selector.map_or_else(|| Ok(DEFAULT_TAG.to_owned()), tag)?;
                let archive = local::run(move || Archive::create(&file, reference)).await?;
                Ok((Repository::Archive(archive), tag))
            }
            Location::Directory { .. } => Err(SourceError::Unsupported {
                what: "writing",
                kind: "a root file system (dir:)",
            }),
        }
    }
}

/// Why nothing is deleted from an archive.
fn archive_only_grows<T>() -> Result<T, SourceError> {
    Err(SourceError::Unsupported {
        what: "deleting",
        kind: "a docker archive",
    })
}

/// Asks a layout or an archive, where that may block.
async fn ask<L, T>(
    listing: &L,
    question: impl FnOnce(&L) -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError>
where
    L: Listing + Clone + Send + 'static,
    T: Send + 'static,
{
    let listing = listing.clone();
    local::run(move || question(&listing)).await
}

impl Repository {
    /// Fetches a manifest or index, verified.
    ///
    /// # Errors
    /// Of every class.
    pub async fn manifest(&self, selector: &Selector) -> Result<Any, SourceError> {
        match self {
            Self::Registry(registry) => registry.manifest(selector).await,
            Self::Layout(layout) => {
                let selector = selector.clone();
                ask(layout, move |layout| layout.manifest(&selector)).await
            }
            Self::Archive(archive) => {
                let selector = selector.clone();
                ask(archive, move |archive| archive.manifest(&selector)).await
            }
        }
    }

    /// Writes a manifest or index: under a tag, or as part of an index or about a subject without one.
    ///
    /// # Errors
    /// Of every class.
    pub async fn put_manifest(&self, tag: Option<&str>, document: &Any) -> Result<(), SourceError> {
        match self {
            Self::Registry(registry) => registry.put_manifest(tag, document).await,
            Self::Layout(layout) => {
                let (layout, document) = (layout.clone(), document.clone());
                let tag = tag.map(str::to_owned);
                local::run(move || layout.put_manifest(tag.as_deref(), &document)).await
            }
            Self::Archive(archive) => {
                let (archive, document) = (archive.clone(), document.clone());
                let tag = tag.map(str::to_owned);
                local::run(move || archive.put_manifest(tag.as_deref(), &document)).await
            }
        }
    }

    /// A blob as a stream, verified at its end.
    ///
    /// # Errors
    /// Of every class; those of a registry come from the stream.
    pub async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream, SourceError> {
        match self {
            Self::Registry(registry) => Ok(registry.blob(descriptor)),
            Self::Layout(layout) => {
                let digest = descriptor.digest;
                let blob = ask(layout, move |layout| layout.blob(&digest)).await?;
                blob.stream(descriptor)
            }
            Self::Archive(archive) => {
                let digest = descriptor.digest;
                let blob = ask(archive, move |archive| archive.blob(&digest)).await?;
                blob.stream(descriptor)
            }
        }
    }

    /// A small blob that is a document, such as an image configuration.
    ///
    /// # Errors
    /// Of every class.
    pub async fn document<T: Content>(
        &self,
        descriptor: &Descriptor,
    ) -> Result<Document<T>, SourceError> {
        let limits = Limits::default();
        let bytes = match &descriptor.data {
            // Verified when the descriptor was parsed.
            Some(data) => data.clone(),
            None => {
                let stream = self.blob(descriptor).await?;
                stream.into_bytes(limits.document_bytes_max).await?.to_vec()
            }
        };
        Document::parse(bytes, &limits).map_err(|source| SourceError::Document {
            what: format!("{}, {} {}", self.label(), T::KIND, descriptor.digest),
            source: Box::new(source),
        })
    }

    /// Whether a blob is there.
    ///
    /// # Errors
    /// Of every class but not found.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, SourceError> {
        match self {
            Self::Registry(registry) => registry.has_blob(digest).await,
            Self::Layout(layout) => {
                let digest = *digest;
                ask(layout, move |layout| layout.has_blob(&digest)).await
            }
            Self::Archive(archive) => {
                let digest = *digest;
                ask(archive, move |archive| archive.has_blob(&digest)).await
            }
        }
    }

    /// Makes a blob be there, see [`RegistryRepository::push_blob`].
    ///
    /// # Errors
    /// Of every class.
    pub async fn push_blob(
        &self,
        descriptor: &Descriptor,
        payload: &Payload,
        mount_from: &[String],
    ) -> Result<Pushed, SourceError> {
        match self {
            Self::Registry(registry) => registry.push_blob(descriptor, payload, mount_from).await,
            Self::Layout(layout) => {
                let (layout, descriptor) = (layout.clone(), descriptor.clone());
                let payload = payload.clone();
                local::run(move || layout.push_blob(&descriptor, &payload)).await
            }
            Self::Archive(archive) => {
                let (archive, descriptor) = (archive.clone(), descriptor.clone());
                let payload = payload.clone();
                local::run(move || archive.push_blob(&descriptor, &payload)).await
            }
        }
    }

    /// Deletes a tag, or a manifest and all its tags.
    ///
    /// # Errors
    /// Of every class.
    pub async fn delete_manifest(&self, selector: &Selector) -> Result<(), SourceError> {
        match self {
            Self::Registry(registry) => registry.delete_manifest(selector).await,
            Self::Layout(layout) => {
                let (layout, selector) = (layout.clone(), selector.clone());
                local::run(move || layout.delete_manifest(&selector)).await
            }
            Self::Archive(_) => archive_only_grows(),
        }
    }

    /// Deletes a blob.
    ///
    /// # Errors
    /// Of every class.
    pub async fn delete_blob(&self, digest: &Digest) -> Result<(), SourceError> {
        match self {
            Self::Registry(registry) => registry.delete_blob(digest).await,
            Self::Layout(layout) => {
                let (layout, digest) = (layout.clone(), *digest);
                local::run(move || layout.delete_blob(&digest)).await
            }
            Self::Archive(_) => archive_only_grows(),
        }
    }

    /// All tags.
    ///
    /// # Errors
    /// Of every class.
    pub async fn tags(&self) -> Result<Vec<String>, SourceError> {
        match self {
            Self::Registry(registry) => registry.tags().await,
            Self::Layout(layout) => ask(layout, Layout::tags).await,
            Self::Archive(archive) => ask(archive, Archive::tags).await,
        }
    }

    /// Manifests whose subject is `subject`.
    ///
    /// # Errors
    /// Of every class but not found.
    pub async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, SourceError> {
        match self {
            Self::Registry(registry) => registry.referrers(subject).await,
            Self::Layout(layout) => {
                let subject = *subject;
                ask(layout, move |layout| layout.referrers(&subject)).await
            }
            Self::Archive(archive) => {
                let subject = *subject;
                ask(archive, move |archive| archive.referrers(&subject)).await
            }
        }
    }
}

impl Source for Repository {
    fn distrust(&self, blob: &Digest) {
        if let Self::Registry(registry) = self {
            registry.distrust(blob);
        }
    }

    fn label(&self) -> String {
        match self {
            Self::Registry(registry) => registry.label(),
            Self::Layout(layout) => layout.label(),
            Self::Archive(archive) => archive.label(),
        }
    }

    fn read_range<'a>(
        &'a self,
        blob: &'a Digest,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>> {
        match self {
            Self::Registry(registry) => Box::pin(registry.read_range(blob, range)),
            Self::Layout(layout) => {
                let digest = *blob;
                Box::pin(ask(layout, move |layout| {
                    layout.blob(&digest)?.read(&digest, &range)
                }))
            }
            Self::Archive(archive) => {
                let digest = *blob;
                Box::pin(ask(archive, move |archive| {
                    archive.blob(&digest)?.read(&digest, &range)
                }))
            }
        }
    }
}
