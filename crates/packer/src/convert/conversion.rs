//! One conversion: images in, documents out, the tag last.

use std::sync::Arc;

use draught_digest::Digest;
use draught_importer::NYDUS_ARTIFACT_TYPE;
use draught_oci::{Any, Descriptor, Document, ImageConfig, Manifest, Platform};
use draught_source::{Blobs, Repository, SourceError};

use super::dictionaries::Dictionaries;
use super::documents;
use super::error::ConvertError;
use super::image::{self, Way};
use super::index;
use super::marks::How;
use super::options::{ConvertOptions, Converted, ConvertedImage, PlatformChoice, Publish};
use crate::archive::TreeContent;
use crate::directory::Directory;
use crate::import::open_image;
use crate::pack::{Layer, Output, Packed, Packer, StoredLayer, spool_blob};
use crate::progress::Progress;

/// An image or index on its way.
pub(super) struct Conversion<'a> {
    pub(super) from: Option<Repository>,
    pub(super) to: Repository,
    pub(super) packer: Packer,
    pub(super) options: &'a ConvertOptions,
    pub(super) how: How,
    pub(super) dictionaries: Dictionaries,
    pub(super) progress: Arc<dyn Progress>,
    pub(super) images: Vec<ConvertedImage>,
    pub(super) carried_over: Vec<Digest>,
}

impl Conversion<'_> {
    /// Where the source is.
    pub(super) fn from(&self) -> Result<&Repository, ConvertError> {
        self.from.as_ref().ok_or_else(|| ConvertError::Read {
            what: "the image".to_owned(),
            source: SourceError::Unsupported {
                what: "reading manifests and blobs",
                kind: "a root file system (dir:)",
            },
        })
    }

    /// An image that stands alone.
    pub(super) async fn single(
        &mut self,
        source: &Document<Manifest>,
        tag: &str,
    ) -> Result<Converted, ConvertError> {
        let way = image::way(source, &self.options.output);
        if way == Way::AsItIs && self.options.publish != Publish::Tag {
            return Err(ConvertError::Publish {
                what: "keeping the original beside the converted image",
                why: format!("{} is a nydus image already", source.digest()),
            });
        }
        if way == Way::AsItIs {
            let document = Any::Manifest(source.clone());
            self.carry_over(&source.descriptor(), document.clone(), 0)
                .await?;
            self.put(&document, Some(tag)).await?;
            return self.finish(source.digest()).await;
        }
        let config = index::read_config(self.from()?, &source.config).await?;
        let converted = self.image(source, &config).await?;
        let digest = converted.digest();
        match self.options.publish {
            Publish::Merged => return self.merge(source, converted, &config.platform, tag).await,
            Publish::Tag => self.put(&Any::Manifest(converted), Some(tag)).await?,
            Publish::Referrer => self.put(&Any::Manifest(converted), None).await?,
        }
        self.finish(digest).await
    }

    /// A directory, as an image whose configuration says nothing but the platform.
    pub(super) async fn directory(
        &mut self,
        directory: Directory,
        tag: &str,
    ) -> Result<Converted, ConvertError> {
        let platform = match &self.options.platform {
            PlatformChoice::One(platform) => platform.clone(),
            PlatformChoice::Host | PlatformChoice::All => Platform::host(),
        };
        self.progress.image_started(&platform, 1);
        self.use_dictionaries(&platform).await?;
        let packed = self.packer.pack_directory(directory).await?;
        let config = Document::write(ImageConfig::new(platform, Vec::new()));
        let converted = Any::Manifest(self.describe(None, &config, packed).await?);
        self.put(&converted, Some(tag)).await?;
        self.finish(converted.digest()).await
    }

    /// Converts an image; its manifest is given back, not written.
    pub(super) async fn image(
        &mut self,
        source: &Document<Manifest>,
        config: &Document<ImageConfig>,
    ) -> Result<Document<Manifest>, ConvertError> {
        self.use_dictionaries(&config.platform).await?;
        let packed = match image::way(source, &self.options.output) {
            Way::Tree => self.tree(source, config).await?,
            Way::Layers | Way::AsItIs => self.layers(source, config).await?,
        };
        self.describe(Some(source), config, packed).await
    }

    /// Makes the packer use the dictionaries that were named, as they are for a platform.
    async fn use_dictionaries(&mut self, platform: &Platform) -> Result<(), ConvertError> {
        if self.dictionaries.is_empty() {
            return Ok(());
        }
        let of = self.dictionaries.of(platform, &self.options.output).await?;
        Ok(self.packer.set_dictionaries(of)?)
    }

    async fn layers(
        &mut self,
        source: &Document<Manifest>,
        config: &Document<ImageConfig>,
    ) -> Result<Packed, ConvertError> {
        let (layers, diff_ids) = (&source.layers, &config.diff_ids);
        if layers.len() != diff_ids.len() {
            return Err(ConvertError::DiffIds {
                layers: layers.len(),
                diff_ids: diff_ids.len(),
            });
        }
        self.progress.image_started(&config.platform, layers.len());
        let from = self.from()?.clone();
        let stored = |(layer, diff_id): (&Descriptor, &Digest)| {
            Arc::new(StoredLayer::new(from.clone(), layer.clone(), *diff_id)) as Arc<dyn Layer>
        };
        let layers: Vec<_> = layers.iter().zip(diff_ids).map(stored).collect();
        Ok(self.packer.pack(&layers).await?)
    }

    /// The tree of an image that has no archives becomes one.
    async fn tree(
        &mut self,
        source: &Document<Manifest>,
        config: &Document<ImageConfig>,
    ) -> Result<Packed, ConvertError> {
        self.progress.image_started(&config.platform, 1);
        let from = self.from()?.clone();
        let opened = open_image(&Blobs::new(from.clone(), None), source).await;
        let opened = opened.map_err(|error| ConvertError::Open {
            what: format!("manifest {}", source.digest()),
            source: Box::new(error),
        })?;
        let stored = opened.tree.map.blobs.iter().map(|blob| blob.stored_bytes);
        let stored_bytes = stored.fold(0, u64::saturating_add);
        self.progress.layer_started(0, Some(stored_bytes));
        let mut blobs = Vec::with_capacity(opened.tree.map.blobs.len());
        for blob in &opened.tree.map.blobs {
            let descriptor = Descriptor::new("", blob.digest, blob.stored_bytes);
            let dir = self.options.output.spool_dir();
            let spooled = spool_blob(&from, &descriptor, dir).await?;
            self.progress.layer_read(0, spooled.bytes());
            let file = spooled.into_file();
            blobs.push(file.map_err(|source| crate::pack::PackError::Spool { source })?);
        }
        let content = TreeContent::new(opened.tree, blobs);
        Ok(self.packer.pack_tree(content).await?)
    }

    /// Writes an image's configuration, and says what its manifest is.
    async fn describe(
        &mut self,
        source: Option<&Document<Manifest>>,
        config: &Document<ImageConfig>,
        packed: Packed,
    ) -> Result<Document<Manifest>, ConvertError> {
        let is_nydus = matches!(self.options.output, Output::Nydus(_));
        let diff_ids: Vec<Digest> = packed.layers.iter().map(|layer| layer.diff_id).collect();
        let steps = documents::Steps {
            became: packed.became(),
            others: packed.layers.iter().filter(|it| it.of.is_none()).count(),
            has_bootstrap: is_nydus,
        };
        let new_config = documents::config(config, &diff_ids, &steps).map_err(|source| {
            ConvertError::Document {
                what: "configuration",
                source,
            }
        })?;
        let bytes = new_config.bytes().to_vec();
        let pusher = &mut self.packer.pusher;
        pusher.push_bytes(&new_config.descriptor(), bytes).await?;
        let layers = packed.layers.iter().map(|layer| layer.descriptor.clone());
        let mut manifest = Manifest::new(new_config.descriptor(), layers.collect());
        if let Some(source) = source {
            documents::inherit(&mut manifest, source);
        }
        let annotations = &mut manifest.annotations;
        annotations.extend(self.options.annotations.clone());
        if let Some(source) = source {
            self.how.mark_image(annotations, &source.digest());
            if self.options.publish == Publish::Referrer {
                manifest.subject = Some(source.descriptor());
            }
        }
        if is_nydus && self.options.publish != Publish::Tag {
            manifest.artifact_type = Some(NYDUS_ARTIFACT_TYPE.to_owned());
        }
        // What the caches keep has to be there by then, or to have failed.
        self.packer.flush().await?;
        self.packer.finish_image(&packed, &mut manifest).await;
        let manifest = Document::write(manifest);
        let blobs = packed.layers.iter().map(|layer| &layer.descriptor);
        let is_blob = |blob: &&Descriptor| blob.size > 0 && !documents::is_bootstrap(blob);
        let blobs = blobs.filter(is_blob).chain(&packed.unlisted);
        self.images.push(ConvertedImage {
            platform: config.platform.clone(),
            source: source.map(Document::digest),
            manifest: manifest.digest(),
            blobs: blobs.map(|blob| (blob.digest, blob.size)).collect(),
            layers: packed.reports,
            bootstrap_layer_bytes: packed.bootstrap_layer_bytes,
            xattrs_left_out: packed.xattrs_left_out,
        });
        Ok(manifest)
    }

    /// Writes a manifest or index, once all blobs are there.
    pub(super) async fn put(
        &mut self,
        document: &Any,
        tag: Option<&str>,
    ) -> Result<(), ConvertError> {
        self.packer.flush().await?;
        let put = self.to.put_manifest(tag, document).await;
        put.map_err(|source| ConvertError::Write {
            what: format!("manifest {}", document.digest()),
            source,
        })
    }

    /// All is written.
    pub(super) async fn finish(&mut self, digest: Digest) -> Result<Converted, ConvertError> {
        Ok(Converted {
            digest,
            images: std::mem::take(&mut self.images),
            carried_over: std::mem::take(&mut self.carried_over),
            cache: self.packer.commit().await,
            unchanged: false,
        })
    }
}
