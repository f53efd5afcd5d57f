//! A cache as a manifest: its layers are the cached blobs and their records, so that no registry collects
//! them. The order is that of use, the last one first.
//!
//! Each record says in its annotations which key it has and which blob belongs to it.

use std::collections::{BTreeMap, BTreeSet};

use draught_digest::Digest;
use draught_oci::{Descriptor, Document, Manifest, media_type};

use super::backend::{CacheError, CachedLayer};
use super::key::CacheKey;
use crate::pack::blob_descriptor;

/// What a manifest that is a cache says it is. Another version is another type, and left alone.
const ARTIFACT_TYPE: &str = "application/vnd.draught.cache.v1+json";
/// A layer's record.
const RECORD_MEDIA_TYPE: &str = "application/vnd.draught.cache.record.v1";
/// Of a record: its key.
const KEY: &str = "vnd.draught.cache.key";
/// Of a record: the digest of its blob, or [`NONE`].
const BLOB: &str = "vnd.draught.cache.blob";
/// The layer brought nothing new.
const NONE: &str = "none";
/// Of an image: its layers, lowest first, a line for each.
const LAYERS: &str = "vnd.draught.cache.layers";

/// A layer that was packed.
pub(crate) fn cached_layer(
    key: CacheKey,
    record: &[u8],
    blob: Option<(Digest, u64)>,
) -> CachedLayer {
    let bytes = record.len() as u64;
    described(key, (Digest::sha256(record), bytes), blob)
}

impl CachedLayer {
    /// A cache of these layers as a manifest, the one used last first.
    #[must_use]
    pub fn list(layers: &[Self]) -> Document<Manifest> {
        write(layers, None)
    }

    /// The layers that a manifest lists: that of a cache, or that of an image which is its own cache. An
    /// image that is none lists none.
    ///
    /// # Errors
    /// [`CacheError::Damaged`] when the list is malformed.
    pub fn listed(manifest: &Manifest) -> Result<Vec<Self>, CacheError> {
        if manifest.artifact_type.as_deref() == Some(ARTIFACT_TYPE) {
            return read(manifest, "the manifest");
        }
        annotated(manifest)
    }
}

fn described(key: CacheKey, record: (Digest, u64), blob: Option<(Digest, u64)>) -> CachedLayer {
    CachedLayer {
        key,
        record: Descriptor::new(RECORD_MEDIA_TYPE, record.0, record.1),
        blob: blob.map(|(digest, bytes)| blob_descriptor(digest, bytes)),
    }
}

/// The configuration, of which a cache has none.
pub(super) const CONFIG: &[u8] = b"{}";

/// Writes a cache. With a subject it is about that image.
pub(super) fn write(layers: &[CachedLayer], subject: Option<Descriptor>) -> Document<Manifest> {
    let mut listed = BTreeSet::new();
    let mut descriptors = Vec::new();
    for layer in layers {
        let blob = layer.blob.as_ref();
        let named = blob.map_or_else(|| NONE.to_owned(), |blob| blob.digest.to_string());
        let record = layer.record.clone();
        descriptors.push(
            record
                .with_annotation(KEY, layer.key.to_string())
                .with_annotation(BLOB, named),
        );
        if let Some(blob) = blob.filter(|blob| listed.insert(blob.digest)) {
            descriptors.push(blob.clone());
        }
    }
    let config = Descriptor::new(
        media_type::EMPTY,
        Digest::sha256(CONFIG),
        CONFIG.len() as u64,
    );
    let mut manifest = Manifest::new(config, descriptors);
    manifest.artifact_type = Some(ARTIFACT_TYPE.to_owned());
    manifest.subject = subject;
    Document::write(manifest)
}

/// Reads a cache; `what` is its name.
pub(super) fn read(manifest: &Manifest, what: &str) -> Result<Vec<CachedLayer>, CacheError> {
    if manifest.artifact_type.as_deref() != Some(ARTIFACT_TYPE) {
        return Err(CacheError::Foreign {
            what: what.to_owned(),
            why: match &manifest.artifact_type {
                Some(artifact_type) => format!("it is {artifact_type:?}"),
                None => "it is an image".to_owned(),
            },
        });
    }
    let sizes: BTreeMap<Digest, u64> = manifest
        .layers
        .iter()
        .map(|layer| (layer.digest, layer.size))
        .collect();
    let records = manifest
        .layers
        .iter()
        .filter(|layer| layer.media_type == RECORD_MEDIA_TYPE);
    let layers: Option<Vec<CachedLayer>> = records
        .map(|record| {
            let key = record.annotation(KEY)?.parse().ok()?;
            let blob = match record.annotation(BLOB)? {
                NONE => None,
                digest => {
                    let digest = digest.parse().ok()?;
                    Some((digest, *sizes.get(&digest)?))
                }
            };
            Some(described(key, (record.digest, record.size), blob))
        })
        .collect();
    layers.ok_or_else(|| CacheError::Damaged {
        what: "manifest".to_owned(),
    })
}

/// Says in an image's manifest what its layers are.
pub(super) fn annotate(layers: &[CachedLayer], manifest: &mut Manifest) {
    let line = |layer: &CachedLayer| {
        let (key, record) = (layer.key, &layer.record);
        let blob = layer.blob.as_ref();
        let blob = blob.map_or_else(
            || NONE.to_owned(),
            |blob| format!("{} {}", blob.digest, blob.size),
        );
        format!("{key} {} {} {blob}", record.digest, record.size)
    };
    let lines: Vec<String> = layers.iter().map(line).collect();
    let annotations = &mut manifest.annotations;
    annotations.insert(LAYERS.to_owned(), lines.join("\n"));
}

/// What an image's manifest says of its layers; nothing if it isn't ours.
pub(super) fn annotated(manifest: &Manifest) -> Result<Vec<CachedLayer>, CacheError> {
    let Some(text) = manifest.annotations.get(LAYERS) else {
        return Ok(Vec::new());
    };
    let line = |line: &str| {
        let mut words = line.split(' ');
        let key = words.next()?.parse().ok()?;
        let record = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let blob = match words.next()? {
            NONE => None,
            digest => Some((digest.parse().ok()?, words.next()?.parse().ok()?)),
        };
        let is_over = words.next().is_none();
        is_over.then(|| described(key, record, blob))
    };
    let layers: Option<Vec<CachedLayer>> = text.lines().map(line).collect();
    layers.ok_or_else(|| CacheError::Damaged {
        what: format!("annotation {LAYERS}"),
    })
}

/// What a source's manifest says of its own layers is not true of those that it becomes.
pub(crate) fn forget(manifest: &mut Manifest) {
    manifest.annotations.remove(LAYERS);
}

/// The layers that were used now, then the others as they were, no more than `max`.
///
/// Of an image the lowest layer counts as the one used last: without it, those above are of no use.
pub(super) fn merge(used: &[CachedLayer], others: &[CachedLayer], max: usize) -> Vec<CachedLayer> {
    let mut seen = BTreeSet::new();
    used.iter()
        .chain(others)
        .filter(|layer| seen.insert(layer.key))
        .take(max)
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, blob: Option<&str>) -> CachedLayer {
        let key = Digest::sha256(name.as_bytes()).to_string().parse().unwrap();
        let blob = blob.map(|blob| (Digest::sha256(blob.as_bytes()), 7));
        cached_layer(key, name.as_bytes(), blob)
    }

    #[test]
    fn a_cache_reads_as_it_was_written() {
        let layers = [
            layer("c", Some("x")),
            layer("a", None),
            layer("b", Some("x")),
        ];
        let manifest = write(&layers, None);
        assert_eq!(manifest.layers.len(), 4, "a blob is listed once");
        assert_eq!(read(&manifest, "it").unwrap(), layers);
        let mut image = Manifest::new(manifest.config.clone(), Vec::new());
        assert!(matches!(
            read(&image, "it"),
            Err(CacheError::Foreign { .. })
        ));
        assert_eq!(annotated(&image).unwrap(), []);
        annotate(&layers, &mut image);
        assert_eq!(annotated(&image).unwrap(), layers);
    }

    #[test]
    fn what_is_malformed_is_not_believed() {
        let whole = write(&[layer("a", Some("x"))], None).content().clone();
        for key in [KEY, BLOB] {
            let mut manifest = whole.clone();
            manifest.layers[0].annotations.remove(key);
            let damaged = read(&manifest, "it");
            assert!(matches!(damaged, Err(CacheError::Damaged { .. })), "{key}");
        }
        let mut manifest = whole.clone();
        manifest.layers.remove(1);
        assert!(read(&manifest, "it").is_err(), "the blob is not listed");
        for text in ["", " ", "x", "sha256:00 none"] {
            let mut image = whole.clone();
            image
                .annotations
                .insert(LAYERS.to_owned(), format!("{text}\n{text}"));
            assert!(annotated(&image).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_layers_used_last_stay() {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| layer(name, None));
        let had = [a.clone(), b.clone(), c.clone()];
        let used = [d.clone(), b.clone()];
        let expect = [d, b, a, c];
        assert_eq!(merge(&used, &had, 9), expect);
        assert_eq!(merge(&used, &had, 3), expect[..3]);
        assert_eq!(merge(&[], &had, 9), had);
    }
}
