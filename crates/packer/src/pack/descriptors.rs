//! Blobs as manifests list them.
//!
//! Origin: `containerd/nydus-snapshotter: pkg/converter/constant.go, convert_unix.go`;
//! `containerd/stargz-snapshotter: docs/estargz.md`.

use draught_digest::Digest;
use draught_importer::{
    BLOB_BACKEND, NYDUS_BLOB, NYDUS_BLOB_IDS, NYDUS_BLOB_MEDIA_TYPE, NYDUS_BOOTSTRAP,
    NYDUS_FS_VERSION,
};
use draught_oci::{Descriptor, media_type};

/// The version of RAFS that we write.
const FS_VERSION: &str = "6";

/// A data blob as a layer.
pub(crate) fn blob_descriptor(digest: Digest, bytes: u64) -> Descriptor {
    Descriptor::new(NYDUS_BLOB_MEDIA_TYPE, digest, bytes).with_annotation(NYDUS_BLOB, "true")
}

/// The layer with the bootstrap.
pub(super) fn bootstrap_descriptor(digest: Digest, bytes: u64) -> Descriptor {
    Descriptor::new(media_type::LAYER_TAR_GZIP, digest, bytes)
        .with_annotation(NYDUS_BOOTSTRAP, "true")
        .with_annotation(NYDUS_FS_VERSION, FS_VERSION)
}

/// The same for an image whose data blobs are in a place that its manifest can't list.
pub(super) fn with_backend(bootstrap: Descriptor, place: &str, blobs: &[Descriptor]) -> Descriptor {
    let ids: Vec<String> = blobs
        .iter()
        .map(|blob| format!("\"{}\"", blob.digest.hex()))
        .collect();
    bootstrap
        .with_annotation(NYDUS_BLOB_IDS, format!("[{}]", ids.join(",")))
        .with_annotation(BLOB_BACKEND, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_marked_as_deployed_snapshotters_expect() {
        let digest = Digest::sha256(b"");
        let blob = blob_descriptor(digest, 1);
        assert_eq!(
            blob.media_type,
            "application/vnd.oci.image.layer.nydus.blob.v1"
        );
        assert_eq!(
            blob.annotation("containerd.io/snapshot/nydus-blob"),
            Some("true")
        );
        let bootstrap = bootstrap_descriptor(digest, 1);
        assert_eq!(
            bootstrap.media_type,
            "application/vnd.oci.image.layer.v1.tar+gzip"
        );
        assert_eq!(
            bootstrap.annotation("containerd.io/snapshot/nydus-bootstrap"),
            Some("true")
        );
        assert_eq!(
            bootstrap.annotation("containerd.io/snapshot/nydus-fs-version"),
            Some("6")
        );
    }
}
