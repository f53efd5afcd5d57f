//! Images of an archive that has no more than a list of them.

use std::collections::BTreeMap;

use draught_digest::{Digest, Hasher};
use draught_oci::{
    Descriptor, Document, ImageConfig, Index, Limits, Manifest, Reference, annotation, media_type,
};

use super::image::{Image, Opening};
use super::names::{LIST_FILE, WireImage, is_named};
use crate::error::SourceError;
use crate::local::LocalBlob;

/// Bytes hashed at a time.
const HASH_BYTES: u64 = 1 << 20;

/// The image that was asked for, with a manifest that is made for it.
pub(super) fn image(
    opening: &Opening<'_>,
    reference: Option<&Reference>,
) -> Result<Image, SourceError> {
    let list = opening.read(LIST_FILE)?;
    let images: Vec<WireImage> = serde_json::from_slice(&list)
        .map_err(|error| opening.wrong(format!("its {LIST_FILE} is malformed: {error}")))?;
    let wire = choose(opening, images, reference)?;
    let config_blob = opening.find(&wire.config)?;
    let config: Document<ImageConfig> =
        Document::parse(opening.read(&wire.config)?, &Limits::default()).map_err(|source| {
            SourceError::Document {
                what: format!(
                    "{}, configuration {:?}",
                    opening.path.display(),
                    wire.config
                ),
                source: Box::new(source),
            }
        })?;
    let names = wire.layers.unwrap_or_default();
    if names.len() != config.diff_ids.len() {
        let (layers, ids) = (names.len(), config.diff_ids.len());
        return Err(opening.wrong(format!("it has {layers} layers, its configuration {ids}")));
    }
    let mut blobs = BTreeMap::from([(config.digest(), config_blob)]);
    let mut layers = Vec::with_capacity(names.len());
    for (name, diff_id) in names.iter().zip(&config.diff_ids) {
        let blob = opening.find(name)?;
        let layer = layer(name, &blob, diff_id)?;
        blobs.insert(layer.digest, blob);
        layers.push(layer);
    }
    let manifest = Document::write(Manifest::new(config.descriptor(), layers));
    let descriptor = manifest.descriptor();
    blobs.insert(
        manifest.digest(),
        LocalBlob::of_bytes(manifest.into_bytes().into()),
    );
    let mut listed: Vec<Descriptor> = wire
        .repo_tags
        .iter()
        .flatten()
        .filter_map(|name| name.parse::<Reference>().ok()?.tag().map(str::to_owned))
        .map(|tag| {
            descriptor
                .clone()
                .with_annotation(annotation::REF_NAME, &tag)
        })
        .collect();
    if listed.is_empty() {
        listed.push(descriptor);
    }
    Ok(Image {
        path: opening.path.to_owned(),
        index: Document::write(Index::new(listed)),
        blobs,
    })
}

/// The image that was asked for.
fn choose(
    opening: &Opening<'_>,
    images: Vec<WireImage>,
    reference: Option<&Reference>,
) -> Result<WireImage, SourceError> {
    let all: Vec<String> = images
        .iter()
        .flat_map(|image| image.repo_tags.clone())
        .flatten()
        .collect();
    let wanted = |image: &WireImage| match reference {
        None => true,
        Some(reference) => image
            .repo_tags
            .iter()
            .flatten()
            .any(|name| is_named(name, reference)),
    };
    let mut found = images.into_iter().filter(wanted);
    match (found.next(), found.next(), reference) {
        (Some(image), None, _) | (Some(image), Some(_), Some(_)) => Ok(image),
        _ => Err(opening.no_such(reference, &all)),
    }
}

/// What a layer is: an uncompressed one has its diff id for a digest; others are hashed, unless their name
/// tells, which the read then verifies.
fn layer(name: &str, blob: &LocalBlob, diff_id: &Digest) -> Result<Descriptor, SourceError> {
    let magic = blob.read(diff_id, &(0..blob.bytes.min(4)))?;
    let media_type = match magic.as_ref() {
        [0x1f, 0x8b, ..] => media_type::LAYER_TAR_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] => media_type::LAYER_TAR_ZSTD,
        _ => {
            return Ok(Descriptor::new(media_type::LAYER_TAR, *diff_id, blob.bytes));
        }
    };
    let named = name
        .strip_prefix("blobs/sha256/")
        .and_then(|hex| format!("sha256:{hex}").parse().ok());
    let digest = match named {
        Some(digest) => digest,
        None => hash(blob, diff_id)?,
    };
    Ok(Descriptor::new(media_type, digest, blob.bytes))
}

/// The digest of a blob in the archive.
fn hash(blob: &LocalBlob, diff_id: &Digest) -> Result<Digest, SourceError> {
    let mut hasher = Hasher::new(diff_id.algorithm());
    let mut position = 0;
    while position < blob.bytes {
        let end = blob.bytes.min(position.saturating_add(HASH_BYTES));
        let piece = blob.read(diff_id, &(position..end))?;
        hasher.update(&piece);
        position = end;
    }
    Ok(hasher.finish())
}
