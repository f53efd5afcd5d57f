//! Media types of OCI and of docker's schema 2.

/// An OCI manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An OCI image configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The two bytes `{}`, the configuration of an artifact that needs none.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// A layer: tar.
pub const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// A layer: tar in gzip.
pub const LAYER_TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A layer: tar in zstd.
pub const LAYER_TAR_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// Docker's manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker's layer: tar.
pub const DOCKER_LAYER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker's layer: tar in gzip.
pub const DOCKER_LAYER_TAR_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker's layer: tar in zstd, as some builders write it.
pub const DOCKER_LAYER_TAR_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// Docker's layer that may only be had from its own URLs.
pub const DOCKER_LAYER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

/// Docker's first manifest, which names no configuration and is refused.
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// The same, signed.
pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// What we ask a registry for when we want a manifest or an index.
pub const MANIFESTS_ACCEPTED: [&str; 4] = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX];

/// How the bytes of a layer are compressed, as its media type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerCompression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// Without parameters and in lower case, as media types are compared.
#[must_use]
pub fn essence(media_type: &str) -> String {
    media_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

/// Whether it is a manifest, OCI's or docker's.
#[must_use]
pub fn is_manifest(media_type: &str) -> bool {
    [MANIFEST, DOCKER_MANIFEST].contains(&media_type)
}

/// Whether it is an index, OCI's or docker's.
#[must_use]
pub fn is_index(media_type: &str) -> bool {
    [INDEX, DOCKER_INDEX].contains(&media_type)
}

/// Whether it is an image configuration, OCI's or docker's.
#[must_use]
pub fn is_image_config(media_type: &str) -> bool {
    [CONFIG, DOCKER_CONFIG].contains(&media_type)
}

/// Whether it is docker's rather than OCI's.
#[must_use]
pub fn is_docker(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.")
}

/// How a layer that is a tar is compressed; `None` when it is no tar that this crate knows.
#[must_use]
pub fn layer_compression(media_type: &str) -> Option<LayerCompression> {
    // OCI's deprecated non-distributable layers say "nondistributable." and are otherwise the same.
    let plain = media_type.replace(".layer.nondistributable.", ".layer.");
    match plain.as_str() {
        LAYER_TAR | DOCKER_LAYER_TAR => Some(LayerCompression::None),
        LAYER_TAR_GZIP | DOCKER_LAYER_TAR_GZIP | DOCKER_LAYER_FOREIGN => {
            Some(LayerCompression::Gzip)
        }
        LAYER_TAR_ZSTD | DOCKER_LAYER_TAR_ZSTD => Some(LayerCompression::Zstd),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_of_a_layer_is_in_its_media_type() {
        for (media_type, expect) in [
            (LAYER_TAR, Some(LayerCompression::None)),
            (DOCKER_LAYER_TAR_GZIP, Some(LayerCompression::Gzip)),
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
                Some(LayerCompression::Zstd),
            ),
            (CONFIG, None),
            ("application/vnd.in-toto+json", None),
        ] {
            assert_eq!(layer_compression(media_type), expect, "{media_type}");
        }
    }

    #[test]
    fn parameters_are_not_part_of_a_media_type() {
        assert_eq!(
            essence("Application/JSON; charset=utf-8"),
            "application/json"
        );
    }
}
