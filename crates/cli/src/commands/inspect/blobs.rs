//! How much of each blob an image uses.

use draught_importer::{BLOB_FROM, Details, Opened};
use draught_oci::Manifest;
use draught_tree::{BLOCK_BYTES, Blob};
use serde::Serialize;

/// One blob.
#[derive(Debug, Serialize)]
pub(crate) struct BlobFacts {
    pub(crate) digest: String,
    /// Of the whole blob, with its tables.
    pub(crate) stored_bytes: u64,
    /// Stored bytes of the extents that the image's chunks are in.
    pub(crate) stored_used_bytes: u64,
    /// Bytes of the local device that holds its content when all of it is there: every chunk of the blob begins
    /// at a block.
    pub(crate) device_bytes: u64,
    /// The same of the image's chunks alone.
    pub(crate) device_used_bytes: u64,
    /// Chunks of the image that are in it.
    pub(crate) chunks: u64,
    /// Decoded bytes of these.
    pub(crate) chunk_bytes: u64,
    /// Chunks of the whole blob, whoever uses them.
    pub(crate) blob_chunks: u64,
    /// The image that the blob was taken from, if it is no layer of this one and its manifest says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
}

/// What is known of the blobs of an image, in the order of its map.
pub(super) fn of(opened: &Opened, manifest: &Manifest) -> Vec<BlobFacts> {
    let map = &opened.tree.map;
    let mut facts: Vec<BlobFacts> = map
        .blobs
        .iter()
        .map(|blob| of_blob(blob, manifest))
        .collect();
    let mut is_used = vec![false; map.extents.len()];
    for chunk in &map.chunks {
        let blob = map.blob_of(chunk);
        let Some(facts) = blob.and_then(|blob| facts.get_mut(blob.index())) else {
            continue;
        };
        let bytes = u64::from(chunk.bytes);
        facts.chunks += 1;
        facts.chunk_bytes = facts.chunk_bytes.saturating_add(bytes);
        let blocks = bytes.next_multiple_of(BLOCK_BYTES);
        facts.device_used_bytes = facts.device_used_bytes.saturating_add(blocks);
        if let Some(is_used) = is_used.get_mut(chunk.extent.index())
            && !std::mem::replace(is_used, true)
            && let Some(extent) = map.extent(chunk.extent)
        {
            let stored = u64::from(extent.stored_bytes);
            facts.stored_used_bytes = facts.stored_used_bytes.saturating_add(stored);
        }
    }
    for (at, facts) in facts.iter_mut().enumerate() {
        facts.blob_chunks = match &opened.details {
            Details::Nydus(nydus) => nydus.blobs.get(at).map_or(0, |info| info.chunks.into()),
            // What the tables of its layers have is all there is.
            Details::Estargz(_) => facts.chunks,
        };
    }
    facts
}

fn of_blob(blob: &Blob, manifest: &Manifest) -> BlobFacts {
    let mut layers = manifest.layers.iter();
    let layer = layers.find(|layer| layer.digest == blob.digest);
    BlobFacts {
        digest: blob.digest.to_string(),
        stored_bytes: blob.stored_bytes,
        stored_used_bytes: 0,
        device_bytes: blob.device_bytes,
        device_used_bytes: 0,
        chunks: 0,
        chunk_bytes: 0,
        blob_chunks: 0,
        from: layer.and_then(|layer| Some(layer.annotation(BLOB_FROM)?.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use draught_digest::Digest;
    use draught_oci::{Descriptor, media_type};

    use super::*;

    #[test]
    fn a_blob_of_another_image_says_which() {
        let digest = Digest::sha256;
        let layer = |name: &[u8]| Descriptor::new(media_type::LAYER_TAR_GZIP, digest(name), 1);
        let layers = vec![
            layer(b"own"),
            layer(b"foreign").with_annotation(BLOB_FROM, "registry.example/base:1"),
        ];
        let config = Descriptor::new(media_type::CONFIG, digest(b"{}"), 2);
        let manifest = Manifest::new(config, layers);
        let from = |name: &[u8]| {
            let blob = Blob {
                digest: digest(name),
                stored_bytes: 1,
                device_bytes: 4096,
            };
            of_blob(&blob, &manifest).from
        };
        assert_eq!(from(b"own"), None);
        assert_eq!(from(b"foreign").as_deref(), Some("registry.example/base:1"));
        assert_eq!(from(b"no layer"), None);
    }
}
