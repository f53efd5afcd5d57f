//! All images of an index.

use std::sync::Arc;

use draught_digest::Digest;
use draught_oci::{Any, Descriptor, Document, Index, Platform, Selector, media_type};
use draught_source::Repository;

use super::error::ConvertError;
use super::image;
use super::options::{Converted, ConvertedImage};
use super::push::Pusher;
use crate::options::PackOptions;
use crate::progress::Progress;

/// Indexes within an index that are carried over: one level exists in practice.
const DEPTH_MAX: usize = 2;

/// An index on its way.
pub(super) struct Conversion<'a> {
    pub(super) from: &'a Repository,
    pub(super) options: &'a PackOptions,
    pub(super) pusher: Pusher,
    pub(super) progress: &'a Arc<dyn Progress>,
    pub(super) images: Vec<ConvertedImage>,
    pub(super) carried_over: Vec<Digest>,
}

impl Conversion<'_> {
    /// Converts every image for Linux, carries over the rest, and keeps the order.
    pub(super) async fn run(
        mut self,
        source: &Document<Index>,
        tag: &str,
    ) -> Result<Converted, ConvertError> {
        let mut manifests = Vec::with_capacity(source.manifests.len());
        for descriptor in &source.manifests {
            manifests.push(self.entry(source, descriptor).await?);
        }
        let mut index = Index::new(manifests);
        index.annotations.clone_from(&source.annotations);
        index.artifact_type.clone_from(&source.artifact_type);
        let index = Any::Index(Document::write(index));
        self.pusher.put(&index, Some(tag)).await?;
        Ok(Converted {
            digest: index.digest(),
            images: self.images,
            carried_over: self.carried_over,
            cache: self.pusher.commit_caches().await,
        })
    }

    /// What an entry of the source becomes.
    async fn entry(
        &mut self,
        source: &Document<Index>,
        descriptor: &Descriptor,
    ) -> Result<Descriptor, ConvertError> {
        let document = read(self.from, descriptor).await?;
        let is_image = source.images().any(|image| image == descriptor);
        let Any::Manifest(manifest) = &document else {
            return self.carry_over(descriptor, document, 1).await;
        };
        if !is_image || !is_config(&manifest.config) {
            return self.carry_over(descriptor, document, 0).await;
        }
        let config = read_config(self.from, &manifest.config).await?;
        let platform = descriptor.platform.as_ref().unwrap_or(&config.platform);
        match image::check(manifest, platform) {
            Ok(()) => {}
            Err(ConvertError::System { .. } | ConvertError::Format { .. }) => {
                return self.carry_over(descriptor, document, 0).await;
            }
            Err(error) => return Err(error),
        }
        let (converted, report) = image::convert(
            self.from,
            manifest,
            &config,
            self.options,
            &mut self.pusher,
            self.progress,
        )
        .await?;
        self.images.push(report);
        let mut entry = converted.descriptor();
        entry.platform = Some(platform.clone());
        entry.annotations.clone_from(&descriptor.annotations);
        self.pusher.put(&Any::Manifest(converted), None).await?;
        Ok(entry)
    }

    /// Copies a document and all that it names, as it is.
    async fn carry_over(
        &mut self,
        descriptor: &Descriptor,
        document: Any,
        depth: usize,
    ) -> Result<Descriptor, ConvertError> {
        // Innermost first: a registry refuses a document that names what it doesn't have.
        let mut todo = vec![(document, depth)];
        let mut done = Vec::new();
        while let Some((document, depth)) = todo.pop() {
            match &document {
                Any::Manifest(manifest) => {
                    for blob in manifest.blobs() {
                        let dir = &self.options.spool_dir;
                        self.pusher.carry_over(self.from, blob, dir).await?;
                    }
                }
                Any::Index(index) => {
                    if depth >= DEPTH_MAX {
                        let digest = index.digest();
                        return Err(ConvertError::Nested { digest });
                    }
                    for inner in &index.manifests {
                        todo.push((read(self.from, inner).await?, depth + 1));
                    }
                }
            }
            done.push(document);
        }
        for document in done.iter().rev() {
            self.pusher.put(document, None).await?;
        }
        self.carried_over.push(descriptor.digest);
        Ok(descriptor.clone())
    }
}

fn is_config(descriptor: &Descriptor) -> bool {
    media_type::is_image_config(&media_type::essence(&descriptor.media_type))
}

/// Reads what an index names.
pub(super) async fn read(from: &Repository, descriptor: &Descriptor) -> Result<Any, ConvertError> {
    let selector = Selector::Digest(descriptor.digest);
    let manifest = from.manifest(&selector).await;
    manifest.map_err(|source| ConvertError::Read {
        what: format!("manifest {}", descriptor.digest),
        source,
    })
}

/// Reads an image's configuration.
pub(super) async fn read_config(
    from: &Repository,
    descriptor: &Descriptor,
) -> Result<Document<draught_oci::ImageConfig>, ConvertError> {
    let config = from.document(descriptor).await;
    config.map_err(|source| ConvertError::Read {
        what: format!("configuration {}", descriptor.digest),
        source,
    })
}

/// The platforms that an index has images for.
pub(super) fn platforms(index: &Index) -> Vec<Platform> {
    index
        .images()
        .filter_map(|image| image.platform.clone())
        .collect()
}
