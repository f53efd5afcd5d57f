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
/// Where the data blobs of a nydus image are that are no layers of its manifest, at the layer with the metadata.
/// It is for people: nobody goes there because an image says so.
pub const BLOB_BACKEND: &str = "dev.draught.blob.backend";

/// What clients say that they know, and a nydus image beside its original asks for.
pub const LAZY_OS_FEATURE: &str = "nydus.remoteimage.v1";
/// What a nydus image beside its original says it is.
pub const NYDUS_ARTIFACT_TYPE: &str = "application/vnd.nydus.image.manifest.v1+json";
/// Which image a data blob was taken from: a reference, at the blob's layer. We write it; nobody's meaning of the
/// image depends on it.
pub const BLOB_FROM: &str = "dev.draught.blob.from";

/// A layer of a nydus image whose chunks lie in another image's tar.gz: that layer's digest.
pub(crate) const NYDUS_REF: &str = "containerd.io/snapshot/nydus-ref";
/// The blobs that a nydus image needs and its manifest does not list: a JSON array of their IDs.
pub const NYDUS_BLOB_IDS: &str = "containerd.io/snapshot/nydus-blob-ids";
/// The bytes of the archive that an eStargz layer is.
pub const ESTARGZ_UNCOMPRESSED_BYTES: &str = "io.containers.estargz.uncompressed-size";
/// The digest of an eStargz layer's table of contents.
pub const ESTARGZ_TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// The digest of a zstd:chunked layer's table of contents, in the two dialects.
pub(crate) const ZSTD_CHUNKED: [&str; 2] = [
    "io.github.containers.zstd-chunked.manifest-checksum",
    "io.containers.zstd-chunked.manifest-checksum",
];
/// The index that belongs to an image whose layers are left as they are.
pub(crate) const SOCI_INDEX: &str = "com.amazon.soci.index-digest";
