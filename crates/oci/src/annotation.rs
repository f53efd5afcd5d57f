//! Annotations that OCI defines, one of containerd, and those that BuildKit puts on attestations.

/// The tag of a manifest in an OCI layout's index.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole name, `HOST/REPO:TAG`, beside [`REF_NAME`] in an archive's index, as docker and containerd write it.
pub const CONTAINERD_IMAGE_NAME: &str = "io.containerd.image.name";
/// When the image was made, RFC 3339.
pub const CREATED: &str = "org.opencontainers.image.created";
/// The version of what is in the image.
pub const VERSION: &str = "org.opencontainers.image.version";
/// The commit that the image was built from.
pub const REVISION: &str = "org.opencontainers.image.revision";
/// Where the image's source is.
pub const SOURCE: &str = "org.opencontainers.image.source";
/// A name for people.
pub const TITLE: &str = "org.opencontainers.image.title";
/// A description for people.
pub const DESCRIPTION: &str = "org.opencontainers.image.description";
/// The digest of the image that this one stands on.
pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
/// The name of the image that this one stands on.
pub const BASE_NAME: &str = "org.opencontainers.image.base.name";

/// What a manifest in an index is about, when it is no image.
pub const DOCKER_REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// The manifest that it is about.
pub const DOCKER_REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
/// The value of [`DOCKER_REFERENCE_TYPE`] for an attestation.
pub const DOCKER_ATTESTATION: &str = "attestation-manifest";
