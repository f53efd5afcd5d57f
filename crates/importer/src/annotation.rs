//! What lazy formats write into manifests.
//!
//! Origin: `containerd/nydus-snapshotter: pkg/converter/constant.go`, `containerd/stargz-snapshotter:
//! estargz/types.go`, `containers/container-libs: storage/pkg/chunked/internal/minimal`.

/// A layer with the metadata of a whole nydus image: `true`.
pub const NYDUS_BOOTSTRAP: &str = "containerd.io/snapshot/nydus-bootstrap";
/// A layer that is a data blob of a nydus image: `true`.
pub const NYDUS_BLOB: &str = "containerd.io/snapshot/nydus-blob";
/// The version of RAFS, at the layer with the metadata.
pub const NYDUS_FS_VERSION: &str = "containerd.io/snapshot/nydus-fs-version";
/// The media type of a data blob of a nydus image.
pub const NYDUS_BLOB_MEDIA_TYPE: &str = "application/vnd.oci.image.layer.nydus.blob.v1";
/// Where in the archive that the metadata layer is the bootstrap lies.
pub const NYDUS_BOOTSTRAP_PATH: &str = "image/image.boot";

/// A layer of a nydus image whose chunks lie in another image's tar.gz: that layer's digest.
pub(crate) const NYDUS_REF: &str = "containerd.io/snapshot/nydus-ref";
/// The digest of an eStargz layer's table of contents.
pub(crate) const ESTARGZ_TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// The digest of a zstd:chunked layer's table of contents, in the two dialects.
pub(crate) const ZSTD_CHUNKED: [&str; 2] = [
    "io.github.containers.zstd-chunked.manifest-checksum",
    "io.containers.zstd-chunked.manifest-checksum",
];
/// The index that belongs to an image whose layers are left as they are.
pub(crate) const SOCI_INDEX: &str = "com.amazon.soci.index-digest";
