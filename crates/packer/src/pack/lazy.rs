//! Layers that become data blobs and a bootstrap.

use std::io;
use std::sync::Arc;

use draught_importer::BLOB_FROM;

use super::descriptors::{self, blob_descriptor, bootstrap_descriptor};
use super::error::PackError;
use super::layer::{Layer, input};
use super::packed::{ListedLayer, Packed};
use super::packer::Packer;
use super::restore;
use crate::blocking::blocking;
use crate::cache::{CacheKey, Kept, cached_layer};
use crate::dictionary::BlobOrigin;
use crate::directory::Directory;
use crate::image::{ImagePacker, PackedBlob, PackedImage};
use crate::options::PackOptions;
use crate::progress::LayerReport;

/// The layers of an image on their way.
#[derive(Default)]
pub(super) struct Progressed {
    pub(super) reports: Vec<LayerReport>,
    /// What goes into caches: the lowest layers, as far as all have a record.
    pub(super) kept: Vec<Arc<Kept>>,
    /// How many of the lowest layers have one.
    pub(super) recorded: usize,
}

impl Progressed {
    /// Adds a layer that was packed. Gives what is kept of it.
    fn push(
        &mut self,
        report: LayerReport,
        blob: Option<&PackedBlob>,
        record: Option<io::Result<Vec<u8>>>,
        key: Option<CacheKey>,
        packer: &Packer,
    ) -> Option<Arc<Kept>> {
        let blob = blob.map(|blob| (blob.content.digest(), blob.content.bytes()));
        let mut kept = None;
        match (record, key) {
            (Some(Ok(record)), Some(key)) if self.recorded == self.reports.len() => {
                let layer = cached_layer(key, &record, blob);
                let of = Arc::new(Kept { layer, record });
                self.recorded += 1;
                if packer.pusher.caches().are_wanted() {
                    self.kept.push(Arc::clone(&of));
                }
                kept = Some(of);
            }
            (Some(Err(error)), _) => packer.pusher.caches().failed_all(&error),
            _ => {}
        }
        self.reports.push(report);
        kept
    }
}

/// What a layer is called in errors.
pub(super) fn name(layer: &dyn Layer) -> String {
    match layer.descriptor() {
        Some(descriptor) => descriptor.digest.to_string(),
        None => "a stream".to_owned(),
    }
}

/// Packs layers, lowest first.
pub(super) async fn pack(
    packer: &mut Packer,
    options: &PackOptions,
    layers: &[Arc<dyn Layer>],
) -> Result<Packed, PackError> {
    let keys = CacheKey::chain(options, layers.iter().map(|layer| &**layer));
    let (mut image, mut done) =
        Box::pin(restore::restore(layers, &keys, options, &mut packer.pusher)).await?;
    for (index, layer) in layers.iter().enumerate().skip(done.reports.len()) {
        let reader = layer.open().await.map_err(|source| PackError::Open {
            layer: index + 1,
            name: name(&**layer),
            source: Box::new(source),
        })?;
        let input = input(&**layer, reader);
        let progress = Arc::clone(packer.pusher.progress());
        let outcome;
        (image, outcome) = blocking(move || {
            let outcome = image.add_layer(input, &*progress);
            (image, outcome)
        })
        .await;
        let (report, blob) = outcome.map_err(|source| PackError::Layer {
            layer: index + 1,
            name: name(&**layer),
            source: Box::new(source),
        })?;
        packer.pusher.caches().count_miss();
        let key = keys.get(index).copied();
        let kept = done.push(report, blob.as_ref(), image.take_record(), key, packer);
        push_blob(blob, kept, packer).await?;
    }
    finish(packer, image, done).await
}

/// Packs a directory as the only layer.
pub(super) async fn pack_directory(
    packer: &mut Packer,
    options: &PackOptions,
    mut directory: Directory,
) -> Result<Packed, PackError> {
    let image = ImagePacker::new(options.clone());
    let mut image = image.map_err(|source| PackError::Options {
        source: Box::new(source),
    })?;
    let told = Arc::clone(packer.pusher.progress());
    let outcome;
    (image, outcome) = blocking(move || {
        let outcome = image.add_directory(&mut directory, &*told);
        (image, outcome)
    })
    .await;
    let (report, blob) = outcome.map_err(|source| PackError::Directory {
        source: Box::new(source),
    })?;
    let mut done = Progressed::default();
    done.push(report, blob.as_ref(), None, None, packer);
    push_blob(blob, None, packer).await?;
    finish(packer, image, done).await
}

/// Sends a layer's blob, if it became one, and notes what it became.
async fn push_blob(
    blob: Option<PackedBlob>,
    kept: Option<Arc<Kept>>,
    packer: &mut Packer,
) -> Result<(), PackError> {
    match (blob, kept) {
        (Some(blob), kept) => {
            let descriptor = blob_descriptor(blob.content.digest(), blob.content.bytes());
            let content = blob.content;
            packer.pusher.push_layer(descriptor, content, kept).await
        }
        (None, Some(kept)) => {
            packer.pusher.caches().note(&kept).await;
            Ok(())
        }
        (None, None) => Ok(()),
    }
}

async fn finish(
    packer: &mut Packer,
    image: ImagePacker,
    done: Progressed,
) -> Result<Packed, PackError> {
    let image = blocking(move || image.finish()).await;
    let PackedImage {
        blobs, bootstrap, ..
    } = image.map_err(|source| PackError::Finish { source })?;
    let mut listed: Vec<ListedLayer> = Vec::with_capacity(blobs.len() + 1);
    for blob in &blobs {
        let mut descriptor = blob_descriptor(blob.digest, blob.stored_bytes);
        if listed.iter().any(|it| it.diff_id == blob.digest) {
            continue;
        }
        let of = match blob.origin {
            BlobOrigin::Layer(layer) => Some(layer),
            BlobOrigin::Dictionary(number) => {
                if let Some(at) = packer.dictionaries.get(number) {
                    descriptor = descriptor.with_annotation(BLOB_FROM, &at.name);
                    let (from, dir) = (Arc::clone(&at.from), packer.output.spool_dir());
                    packer.pusher.take_blob(&*from, &descriptor, dir).await?;
                }
                None
            }
        };
        listed.push(ListedLayer {
            diff_id: blob.digest,
            descriptor,
            of,
        });
    }
    let mut bootstrap_layer =
        bootstrap_descriptor(bootstrap.content.digest(), bootstrap.content.bytes());
    let mut unlisted = Vec::new();
    if let Some(place) = &packer.unlisted {
        unlisted.extend(listed.drain(..).map(|layer| layer.descriptor));
        bootstrap_layer = descriptors::with_backend(bootstrap_layer, place, &unlisted);
    }
    let bootstrap_layer_bytes = bootstrap_layer.size;
    packer
        .pusher
        .push_document(bootstrap_layer.clone(), bootstrap.content)
        .await?;
    listed.push(ListedLayer {
        descriptor: bootstrap_layer,
        diff_id: bootstrap.diff_id,
        of: None,
    });
    Ok(Packed {
        layers: listed,
        unlisted,
        reports: done.reports,
        bootstrap_layer_bytes,
        xattrs_left_out: bootstrap.xattrs_left_out,
        kept: done.kept,
    })
}
