//! A cache in the converted images themselves.
//!
//! An image's manifest says in an annotation what its layers are. Their records are blobs of the same
//! repository; a manifest about the image names them, so that no registry collects them, and with them the
//! blobs that are no part of the image because upper layers hide all of their content.
//!
//! What is read is the image, or all images of the index, that the destination's tag stands for.

use draught_oci::{Any, Document, Manifest, Selector};
use draught_source::{BlobBackend, Repository, SourceError};
use futures_util::future::BoxFuture;

use super::backend::{BuildCache, CacheError, CacheHit, CachedLayer};
use super::document;
use super::key::CacheKey;
use super::shelf::Shelf;

/// The destination, and what its image said when it was opened.
#[derive(Debug)]
pub(super) struct InlineCache {
    shelf: Shelf,
    layers_max: usize,
}

impl InlineCache {
    pub(super) async fn open(
        to: &Repository,
        tag: &str,
        layers_max: usize,
    ) -> Result<Self, CacheError> {
        if let Repository::Archive(_) = to {
            return Err(CacheError::Unsupported {
                why: "a docker archive is written anew each time, so an image in it has no cache",
            });
        }
        let found = match found(to, tag).await {
            Err(CacheError::Read { source, .. }) if source.is_not_found() => Vec::new(),
            found => found?,
        };
        Ok(Self {
            shelf: Shelf::new(to.clone(), found),
            layers_max,
        })
    }

    async fn annotate(
        &self,
        layers: &[CachedLayer],
        manifest: &mut Manifest,
    ) -> Result<(), CacheError> {
        let layers = layers.get(..self.layers_max).unwrap_or(layers);
        let mut annotated = manifest.clone();
        document::annotate(layers, &mut annotated);
        // As it will be written.
        let subject = Document::write(annotated.clone()).descriptor();
        let about = document::write(layers, Some(subject));
        self.shelf.write(None, about).await?;
        *manifest = annotated;
        self.shelf.count_used(layers);
        Ok(())
    }
}

/// What the images under a tag say of their layers.
async fn found(to: &Repository, tag: &str) -> Result<Vec<CachedLayer>, CacheError> {
    let failed = |source: SourceError| CacheError::Read {
        what: "the image that the tag stands for".to_owned(),
        source,
    };
    let selector = Selector::Tag(tag.to_owned());
    let index = match to.manifest(&selector).await.map_err(failed)? {
        Any::Manifest(manifest) => return document::annotated(&manifest),
        Any::Index(index) => index,
    };
    let mut found = Vec::new();
    for image in index.images() {
        let selector = Selector::Digest(image.digest);
        if let Any::Manifest(manifest) = to.manifest(&selector).await.map_err(failed)? {
            found.append(&mut document::annotated(&manifest)?);
        }
    }
    Ok(found)
}

impl BuildCache for InlineCache {
    fn label(&self) -> String {
        "inline".to_owned()
    }

    fn blobs(&self) -> &dyn BlobBackend {
        &self.shelf.repository
    }

    fn get<'a>(&'a self, key: &'a CacheKey) -> BoxFuture<'a, Result<Option<CacheHit>, CacheError>> {
        Box::pin(self.shelf.get(key))
    }

    fn put<'a>(
        &'a self,
        layer: &'a CachedLayer,
        record: &'a [u8],
    ) -> BoxFuture<'a, Result<(), CacheError>> {
        Box::pin(self.shelf.put(layer, record))
    }

    fn finish_image<'a>(
        &'a self,
        layers: &'a [CachedLayer],
        manifest: &'a mut Manifest,
    ) -> BoxFuture<'a, Result<(), CacheError>> {
        Box::pin(self.annotate(layers, manifest))
    }

    fn commit(&self) -> BoxFuture<'_, Result<usize, CacheError>> {
        // All was written with the images.
        Box::pin(async { Ok(self.shelf.used().len().min(self.layers_max)) })
    }
}
