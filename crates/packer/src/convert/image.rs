//! One image of one platform.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use draught_digest::Digest;
use draught_importer::{Format, NYDUS_BLOB_MEDIA_TYPE, detect};
use draught_oci::{Descriptor, Document, ImageConfig, Manifest, Platform, media_type};
use draught_source::{BlobReader, Repository};
use tokio::runtime::Handle;

use super::cached;
use super::documents;
use super::error::ConvertError;
use super::options::ConvertedImage;
use super::push::Pusher;
use crate::blocking::blocking;
use crate::cache::{CacheKey, Kept, cached_layer};
use crate::image::{ImagePacker, PackedBlob, PackedImage};
use crate::layer::{LayerInput, PackLayerError};
use crate::options::PackOptions;
use crate::progress::{LayerReport, Progress};
use crate::spool::{Spool, Spooled};

/// The layers of an image on their way.
#[derive(Default)]
pub(super) struct Packed {
    pub(super) layers: Vec<LayerReport>,
    /// The blob of each layer that became one.
    pub(super) blobs: Vec<Option<Digest>>,
    /// What goes into caches: the lowest layers, as far as all have a record.
    pub(super) kept: Vec<Kept>,
}

impl Packed {
    /// Adds a layer that was packed.
    fn push_layer(
        &mut self,
        report: LayerReport,
        blob: Option<&PackedBlob>,
        record: Option<io::Result<Vec<u8>>>,
        key: CacheKey,
        pusher: &Pusher,
    ) {
        let blob = blob.map(|blob| (blob.content.digest(), blob.content.bytes()));
        match record {
            Some(Ok(record)) if self.kept.len() == self.layers.len() => {
                let layer = cached_layer(key, &record, blob);
                self.kept.push(Kept { layer, record });
            }
            Some(Err(error)) => pusher.caches().failed_all(&error),
            _ => {}
        }
        self.layers.push(report);
        self.blobs.push(blob.map(|(digest, _)| digest));
    }
}

/// Checks that an image can be converted. [`ConvertError::System`] and [`ConvertError::Format`] say that
/// it is another kind of thing, which can still be carried over.
pub(super) fn check(
    manifest: &Document<Manifest>,
    platform: &Platform,
) -> Result<(), ConvertError> {
    if !platform.os().is_empty() && platform.os() != "linux" {
        let platform = platform.clone();
        return Err(ConvertError::System { platform });
    }
    if !media_type::is_image_config(&media_type::essence(&manifest.config.media_type)) {
        return Err(ConvertError::Format {
            manifest: manifest.digest(),
            why: format!(
                "its configuration is {:?}: it is no image",
                manifest.config.media_type
            ),
        });
    }
    let format = detect(manifest);
    if !matches!(format, Format::Nydus { .. }) {
        check_layers(&manifest.layers)?;
    }
    let why = match format {
        Format::Nydus { .. } => "it is a nydus image already".to_owned(),
        // An image without layers is an image nevertheless.
        Format::Unsupported { why } if !manifest.layers.is_empty() => why,
        Format::Plain(_) | Format::Estargz { .. } | Format::Unsupported { .. } => return Ok(()),
    };
    Err(ConvertError::Format {
        manifest: manifest.digest(),
        why,
    })
}

fn check_layers(layers: &[Descriptor]) -> Result<(), ConvertError> {
    for (index, layer) in layers.iter().enumerate() {
        let media_type = media_type::essence(&layer.media_type);
        if media_type::layer_compression(&media_type).is_none()
            && media_type != NYDUS_BLOB_MEDIA_TYPE
        {
            return Err(ConvertError::MediaType {
                layer: index + 1,
                digest: layer.digest,
                media_type: layer.media_type.clone(),
            });
        }
    }
    Ok(())
}

/// Converts an image; its manifest is given back, not written.
pub(super) async fn convert(
    from: &Repository,
    source: &Document<Manifest>,
    config: &Document<ImageConfig>,
    options: &PackOptions,
    pusher: &mut Pusher,
    progress: &Arc<dyn Progress>,
) -> Result<(Document<Manifest>, ConvertedImage), ConvertError> {
    let (layers, diff_ids) = (&source.layers, &config.diff_ids);
    if layers.len() != diff_ids.len() {
        return Err(ConvertError::DiffIds {
            layers: layers.len(),
            diff_ids: diff_ids.len(),
        });
    }
    progress.image_started(&config.platform, layers.len());
    let keys = CacheKey::chain(options, layers.iter().zip(diff_ids));
    let (mut packer, mut packed) =
        Box::pin(cached::restore(source, config, &keys, options, pusher)).await?;
    let todo = layers.iter().zip(diff_ids).zip(keys).enumerate();
    for (index, ((layer, diff_id), key)) in todo.skip(packed.layers.len()) {
        let failed = |source: PackLayerError| ConvertError::Layer {
            layer: index + 1,
            digest: layer.digest,
            source: Box::new(source),
        };
        let stream = from
            .blob(layer)
            .await
            .map_err(|source| ConvertError::Read {
                what: format!("layer {} ({})", index + 1, layer.digest),
                source,
            })?;
        let input = LayerInput {
            reader: BlobReader::new(stream, &Handle::current()),
            digest: Some(layer.digest),
            stored_bytes: Some(layer.size),
            diff_id: Some(*diff_id),
        };
        let progress = Arc::clone(progress);
        let outcome;
        (packer, outcome) = blocking(move || {
            let outcome = packer.add_layer(input, &*progress);
            (packer, outcome)
        })
        .await;
        let (report, blob) = outcome.map_err(failed)?;
        pusher.caches().count_miss();
        packed.push_layer(report, blob.as_ref(), packer.take_record(), key, pusher);
        push_blob(blob, pusher).await?;
    }
    finish(packer, packed, Some((source, config)), config, pusher).await
}

/// Sends a layer's blob, if it became one.
pub(super) async fn push_blob(
    blob: Option<PackedBlob>,
    pusher: &mut Pusher,
) -> Result<(), ConvertError> {
    let Some(blob) = blob else {
        return Ok(());
    };
    let descriptor = documents::blob_descriptor(blob.content.digest(), blob.content.bytes());
    pusher.push_layer(descriptor, blob.content).await
}

/// Ends an image that was made from a directory.
pub(super) async fn finish_directory(
    packer: ImagePacker,
    report: LayerReport,
    blob: Option<Digest>,
    config: &Document<ImageConfig>,
    pusher: &mut Pusher,
) -> Result<(Document<Manifest>, ConvertedImage), ConvertError> {
    let packed = Packed {
        layers: vec![report],
        blobs: vec![blob],
        kept: Vec::new(),
    };
    finish(packer, packed, None, config, pusher).await
}

async fn finish(
    packer: ImagePacker,
    packed: Packed,
    source: Option<(&Document<Manifest>, &Document<ImageConfig>)>,
    config: &Document<ImageConfig>,
    pusher: &mut Pusher,
) -> Result<(Document<Manifest>, ConvertedImage), ConvertError> {
    let image = blocking(move || packer.finish()).await;
    let PackedImage {
        blobs, bootstrap, ..
    } = image.map_err(|source| ConvertError::Finish { source })?;
    let blobs: Vec<(Digest, u64)> = blobs
        .iter()
        .filter_map(|blob| Some((blob.digest?, blob.stored_bytes)))
        .collect();
    let bootstrap_layer =
        documents::bootstrap_descriptor(bootstrap.content.digest(), bootstrap.content.bytes());
    let bootstrap_layer_bytes = bootstrap_layer.size;
    pusher
        .push_file(bootstrap_layer.clone(), bootstrap.content)
        .await?;

    let mut layers: Vec<Descriptor> = blobs
        .iter()
        .map(|(digest, bytes)| documents::blob_descriptor(*digest, *bytes))
        .collect();
    layers.push(bootstrap_layer);
    let mut diff_ids: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
    diff_ids.push(bootstrap.diff_id);
    let is_part = |digest: &Digest| blobs.iter().any(|(blob, _)| blob == digest);
    let blob_of: Vec<bool> = packed
        .blobs
        .iter()
        .map(|blob| blob.as_ref().is_some_and(is_part))
        .collect();
    let new_config = documents::config(config, &diff_ids, &blob_of).map_err(|source| {
        ConvertError::Document {
            what: "configuration",
            source,
        }
    })?;
    pusher
        .push_bytes(&new_config.descriptor(), new_config.bytes().to_vec())
        .await?;
    let of = source.map(|(manifest, _)| (manifest.content(), manifest.digest()));
    let mut manifest = documents::manifest(of, &new_config, layers);
    // What the caches keep has to be there by then, or to have failed.
    pusher.flush().await?;
    pusher
        .caches()
        .finish_image(&packed.kept, &mut manifest)
        .await;
    let manifest = Document::write(manifest);
    let converted = ConvertedImage {
        platform: config.platform.clone(),
        source: source.map(|(manifest, _)| manifest.digest()),
        manifest: manifest.digest(),
        layers: packed.layers,
        blobs,
        bootstrap_layer_bytes,
        xattrs_left_out: bootstrap.xattrs_left_out,
    };
    Ok((manifest, converted))
}

/// Writes a blob of the source to the spool directory.
pub(super) async fn spool_blob(
    from: &Repository,
    descriptor: &Descriptor,
    dir: &Path,
) -> Result<Spooled, ConvertError> {
    let what = format!("blob {}", descriptor.digest);
    let stream = from
        .blob(descriptor)
        .await
        .map_err(|source| ConvertError::Read {
            what: what.clone(),
            source,
        })?;
    let mut reader = BlobReader::new(stream, &Handle::current());
    let dir: PathBuf = dir.to_owned();
    let spooled = blocking(move || {
        let mut spool = Spool::new(&dir)?;
        std::io::copy(&mut reader, &mut spool)?;
        Ok(spool.finish())
    })
    .await;
    spooled.map_err(|source| ConvertError::Spool { source })
}
