//! All images of an index.

use draught_digest::Digest;
use draught_importer::LAZY_OS_FEATURE;
use draught_oci::{Any, Descriptor, Document, Index, Manifest, Platform, Selector, media_type};
use draught_source::Repository;

use super::conversion::Conversion;
use super::error::ConvertError;
use super::image::{self, Way};
use super::options::{Converted, Publish};
use crate::pack::Output;

/// Indexes within an index that are carried over: one level exists in practice.
const DEPTH_MAX: usize = 2;

/// What an entry of an index becomes.
enum Entry {
    /// It stays what it is.
    Carried(Box<Descriptor>),
    /// An image that was converted, for a platform.
    Image(Box<Document<Manifest>>, Platform),
}

impl Conversion<'_> {
    /// Converts every image for Linux, carries over the rest, and keeps the order.
    pub(super) async fn index(
        &mut self,
        source: &Document<Index>,
        tag: &str,
    ) -> Result<Converted, ConvertError> {
        let publish = self.options.publish;
        let mut manifests = Vec::with_capacity(source.manifests.len());
        let mut lazy = Vec::new();
        let is_nydus = matches!(self.options.output, Output::Nydus(_));
        for descriptor in &source.manifests {
            if is_nydus && is_made_of_another(descriptor) {
                // It becomes what its original becomes now.
                continue;
            }
            match self.entry(source, descriptor).await? {
                Entry::Carried(descriptor) => manifests.push(*descriptor),
                Entry::Image(converted, platform) => {
                    let mut entry = converted.descriptor();
                    entry.annotations.clone_from(&descriptor.annotations);
                    entry.platform = Some(platform.clone());
                    self.put(&Any::Manifest(*converted), None).await?;
                    if publish == Publish::Tag {
                        manifests.push(entry);
                        continue;
                    }
                    if publish == Publish::Merged {
                        lazy.push(merged(entry, &platform));
                        let original = read(self.from()?, descriptor).await?;
                        manifests.push(self.carry_over(descriptor, original, 0).await?);
                    }
                }
            }
        }
        if publish == Publish::Referrer {
            let digest = self.images.last().map(|image| image.manifest);
            return self.finish(digest.unwrap_or_else(|| source.digest())).await;
        }
        if self.images.is_empty() && self.options.annotations.is_empty() {
            // All of it has the format: so has the index.
            let document = Any::Index(source.clone());
            self.put(&document, Some(tag)).await?;
            return self.finish(source.digest()).await;
        }
        manifests.append(&mut lazy);
        let mut index = Index::new(manifests);
        index.annotations.clone_from(&source.annotations);
        index.artifact_type.clone_from(&source.artifact_type);
        self.put_index(index, &source.digest(), tag).await
    }

    /// One image and what it became, under one tag.
    pub(super) async fn merge(
        &mut self,
        source: &Document<Manifest>,
        converted: Document<Manifest>,
        platform: &Platform,
        tag: &str,
    ) -> Result<Converted, ConvertError> {
        let mut original = source.descriptor();
        original.platform = Some(platform.clone());
        let original = self
            .carry_over(&original, Any::Manifest(source.clone()), 0)
            .await?;
        let lazy = merged(converted.descriptor(), platform);
        self.put(&Any::Manifest(converted), None).await?;
        let index = Index::new(vec![original, lazy]);
        self.put_index(index, &source.digest(), tag).await
    }

    async fn put_index(
        &mut self,
        mut index: Index,
        source: &Digest,
        tag: &str,
    ) -> Result<Converted, ConvertError> {
        let annotations = &mut index.annotations;
        super::marks::forget(annotations);
        annotations.extend(self.options.annotations.clone());
        self.how.mark(annotations, source);
        let index = Any::Index(Document::write(index));
        self.put(&index, Some(tag)).await?;
        self.finish(index.digest()).await
    }

    /// What an entry of the source becomes.
    async fn entry(
        &mut self,
        source: &Document<Index>,
        descriptor: &Descriptor,
    ) -> Result<Entry, ConvertError> {
        let document = read(self.from()?, descriptor).await?;
        let is_image = source.images().any(|image| image == descriptor);
        let manifest = match &document {
            Any::Manifest(manifest) if is_image && is_config(&manifest.config) => manifest,
            Any::Manifest(_) => return self.carried(descriptor, document, 0).await,
            Any::Index(_) => return self.carried(descriptor, document, 1).await,
        };
        if image::way(manifest, &self.options.output) == Way::AsItIs {
            return self.carried(descriptor, document, 0).await;
        }
        let config = read_config(self.from()?, &manifest.config).await?;
        let platform = descriptor.platform.as_ref().unwrap_or(&config.platform);
        match image::check(manifest, platform) {
            Ok(()) => {}
            Err(ConvertError::System { .. } | ConvertError::Format { .. }) => {
                return self.carried(descriptor, document, 0).await;
            }
            Err(error) => return Err(error),
        }
        let converted = self.image(manifest, &config).await?;
        Ok(Entry::Image(Box::new(converted), platform.clone()))
    }

    async fn carried(
        &mut self,
        descriptor: &Descriptor,
        document: Any,
        depth: usize,
    ) -> Result<Entry, ConvertError> {
        if self.options.publish == Publish::Referrer {
            // It is where it is; nothing is said of it.
            return Ok(Entry::Carried(Box::new(descriptor.clone())));
        }
        let carried = self.carry_over(descriptor, document, depth).await?;
        Ok(Entry::Carried(Box::new(carried)))
    }

    /// Copies a document and all that it names, as it is.
    pub(super) async fn carry_over(
        &mut self,
        descriptor: &Descriptor,
        document: Any,
        depth: usize,
    ) -> Result<Descriptor, ConvertError> {
        let from = self.from()?.clone();
        // Innermost first: a registry refuses a document that names what it doesn't have.
        let mut todo = vec![(document, depth)];
        let mut done = Vec::new();
        while let Some((document, depth)) = todo.pop() {
            match &document {
                Any::Manifest(manifest) => {
                    for blob in manifest.blobs() {
                        let dir = self.options.output.spool_dir();
                        let pusher = &mut self.packer.pusher;
                        pusher.take_document(&from, blob, dir).await?;
                    }
                }
                Any::Index(index) => {
                    if depth >= DEPTH_MAX {
                        let digest = index.digest();
                        return Err(ConvertError::Nested { digest });
                    }
                    for inner in &index.manifests {
                        todo.push((read(&from, inner).await?, depth + 1));
                    }
                }
            }
            done.push(document);
        }
        for document in done.iter().rev() {
            self.put(document, None).await?;
        }
        self.carried_over.push(descriptor.digest);
        Ok(descriptor.clone())
    }
}

/// The entry of a nydus image beside its original: who does not know the feature does not choose it.
///
/// Origin: `containerd/nydus-snapshotter: pkg/converter/convert_unix.go`.
fn merged(mut entry: Descriptor, platform: &Platform) -> Descriptor {
    let mut features = platform.os_features().to_vec();
    if !features.iter().any(|feature| feature == LAZY_OS_FEATURE) {
        features.push(LAZY_OS_FEATURE.to_owned());
    }
    entry.platform = Some(platform.clone().with_os_features(features));
    entry
}

/// Whether an entry is what another entry became before, see [`merged`].
fn is_made_of_another(entry: &Descriptor) -> bool {
    let features = entry.platform.as_ref().map(Platform::os_features);
    let mut features = features.unwrap_or_default().iter();
    features.any(|feature| feature == LAZY_OS_FEATURE)
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
