//! What an image is, from its manifest.

use draught_digest::Digest;
use draught_oci::{Descriptor, Manifest, media_type};

use crate::annotation::{
    ESTARGZ_TOC_DIGEST, NYDUS_BLOB, NYDUS_BLOB_MEDIA_TYPE, NYDUS_BOOTSTRAP, NYDUS_FS_VERSION,
    NYDUS_REF, SOCI_INDEX, ZSTD_CHUNKED,
};

/// What an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// A nydus image that can be mounted lazily.
    Nydus {
        /// The layer with the metadata of the whole image.
        bootstrap: Box<Descriptor>,
        /// The data blobs, in the order of the manifest.
        blobs: Vec<Descriptor>,
    },
    /// An eStargz image that can be mounted lazily.
    Estargz {
        /// All layers, lowest first, each with the digest of its table of contents.
        layers: Vec<(Descriptor, Digest)>,
    },
    /// Layers that are archives: can be pulled, unpacked and converted, but not mounted lazily.
    Plain(Plain),
    /// Nothing that can be mounted or converted.
    Unsupported {
        /// What it is, and what could be done about it.
        why: String,
    },
}

/// What is known of an image whose layers are archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plain {
    /// A lazy format that the layers are made for too, which is not read lazily here.
    pub lazy_format: Option<&'static str>,
    /// The first layer that keeps the image from being read lazily, where other layers could be.
    pub hinders: Option<Digest>,
}

impl Plain {
    /// Why the image can't be mounted lazily, and what could be done about it.
    #[must_use]
    pub fn why_not_lazy(&self) -> String {
        match (self.hinders, self.lazy_format) {
            (Some(layer), _) => format!(
                "some of its layers are eStargz, but layer {layer} is an archive without a table of contents; \
                 convert it first"
            ),
            (None, format) => {
                let kind = format.unwrap_or("tar");
                format!("its layers are {kind} archives; convert it first")
            }
        }
    }
}

impl Format {
    /// The format's name, for people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nydus { .. } => "nydus",
            Self::Estargz { .. } => "eStargz",
            Self::Plain(Plain {
                lazy_format: Some(name),
                ..
            }) => name,
            Self::Plain(_) => "plain layers",
            Self::Unsupported { .. } => "unsupported",
        }
    }
}

/// Whether an annotation says yes. Nydus' tools compare with nothing, they look whether it is there; none
/// writes anything but `true`.
fn says(descriptor: &Descriptor, annotation: &str) -> bool {
    let value = descriptor.annotations.get(annotation);
    value.is_some_and(|value| value != "false")
}

/// Says from its manifest what an image is.
#[must_use]
pub fn detect(manifest: &Manifest) -> Format {
    if manifest.layers.is_empty() {
        let why = "the manifest names no layers".to_owned();
        return Format::Unsupported { why };
    }
    let bootstraps = manifest
        .layers
        .iter()
        .filter(|layer| says(layer, NYDUS_BOOTSTRAP));
    let bootstraps: Vec<_> = bootstraps.collect();
    let blobs = manifest.layers.iter().filter(|layer| {
        says(layer, NYDUS_BLOB) || media_type::essence(&layer.media_type) == NYDUS_BLOB_MEDIA_TYPE
    });
    let blobs: Vec<_> = blobs.cloned().collect();
    match bootstraps.as_slice() {
        [] if blobs.is_empty() => plain(manifest),
        [] => unsupported("it has nydus data blobs and no layer with their metadata"),
        [bootstrap] => nydus(manifest, bootstrap, blobs),
        _ => unsupported("it has several layers with nydus metadata; one was expected"),
    }
}

fn unsupported(why: &str) -> Format {
    Format::Unsupported {
        why: why.to_owned(),
    }
}

fn nydus(manifest: &Manifest, bootstrap: &Descriptor, blobs: Vec<Descriptor>) -> Format {
    let version = bootstrap.annotations.get(NYDUS_FS_VERSION);
    match version.map(String::as_str) {
        // Old converters did not say; the bootstrap does.
        None | Some("6") => {}
        Some("5") => {
            return unsupported(
                "it is a nydus image of RAFS version 5; convert its source with version 6",
            );
        }
        Some(version) => {
            return unsupported(&format!(
                "it is a nydus image of RAFS version {version:?}, which is not known"
            ));
        }
    }
    if manifest.layers.iter().any(|layer| says(layer, NYDUS_REF)) {
        return unsupported(
            "it is a nydus image whose data lies in another image's layers (zran), which is not supported",
        );
    }
    if bootstrap.media_type.ends_with("+encrypted") {
        return unsupported("its nydus metadata is encrypted, which is not supported");
    }
    let others = manifest.layers.iter().filter(|layer| {
        layer.digest != bootstrap.digest && blobs.iter().all(|blob| blob.digest != layer.digest)
    });
    if others.count() != 0 {
        return unsupported("it mixes nydus data blobs with other layers");
    }
    Format::Nydus {
        bootstrap: Box::new(bootstrap.clone()),
        blobs,
    }
}

fn plain(manifest: &Manifest) -> Format {
    for layer in &manifest.layers {
        if media_type::layer_compression(&media_type::essence(&layer.media_type)).is_none() {
            return Format::Unsupported {
                why: format!(
                    "layer {} is a {:?}, which is no layer of an image",
                    layer.digest, layer.media_type
                ),
            };
        }
    }
    let has = |annotation: &str| {
        let layers = manifest.layers.iter();
        let mut layers = layers.filter(|layer| !layer.annotations.contains_key(annotation));
        layers.next().is_none()
    };
    let tables: Vec<_> = manifest.layers.iter().map(estargz_toc).collect();
    if tables.iter().all(Option::is_some) {
        let layers = manifest.layers.iter().cloned();
        let layers = layers.zip(tables.into_iter().flatten()).collect();
        return Format::Estargz { layers };
    }
    let without = tables.iter().position(Option::is_none);
    let without = without.and_then(|index| manifest.layers.get(index));
    let hinders = without.filter(|_| tables.iter().any(Option::is_some));
    let lazy_format = if ZSTD_CHUNKED.into_iter().any(has) {
        Some("zstd:chunked")
    } else if manifest.annotations.contains_key(SOCI_INDEX) {
        Some("SOCI")
    } else {
        None
    };
    Format::Plain(Plain {
        lazy_format,
        hinders: hinders.map(|layer| layer.digest),
    })
}

/// The digest of the table of contents of a layer that is eStargz. Layers of zstd:chunked may name one too.
#[must_use]
pub fn estargz_toc(layer: &Descriptor) -> Option<Digest> {
    let media_type = media_type::essence(&layer.media_type);
    let is_gzip =
        media_type::layer_compression(&media_type) == Some(media_type::LayerCompression::Gzip);
    let is_chunked = ZSTD_CHUNKED
        .into_iter()
        .any(|annotation| layer.annotations.contains_key(annotation));
    let digest = layer.annotations.get(ESTARGZ_TOC_DIGEST);
    let digest = digest.filter(|_| is_gzip && !is_chunked);
    digest.and_then(|digest| digest.parse().ok())
}
