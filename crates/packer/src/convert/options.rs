//! What is to be converted, and what became of it.

use draught_digest::Digest;
use draught_oci::Platform;

use crate::cache::{CacheOptions, CacheReport};
use crate::options::PackOptions;
use crate::progress::LayerReport;

/// Which images of an index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PlatformChoice {
    /// The one for this machine. An image that stands alone is taken whatever it is for.
    #[default]
    Host,
    /// The one for this platform, of an index or alone.
    One(Platform),
    /// All of them: an index stays an index.
    All,
}

/// How an image is to be converted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConvertOptions {
    /// How its layers are packed.
    pub pack: PackOptions,
    /// Which platforms.
    pub platform: PlatformChoice,
    /// Where layers are that were converted before.
    pub cache: CacheOptions,
}

/// An image of one platform that was converted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvertedImage {
    /// What it runs on.
    pub platform: Platform,
    /// The manifest that it was made from; `None` for a directory.
    pub source: Option<Digest>,
    /// Its manifest.
    pub manifest: Digest,
    /// What its layers were, lowest first.
    pub layers: Vec<LayerReport>,
    /// Its data blobs, digest and size in bytes.
    pub blobs: Vec<(Digest, u64)>,
    /// Size in bytes of the layer with its bootstrap.
    pub bootstrap_layer_bytes: u64,
    /// Extended attributes that no image of this format can hold, and that were left out.
    pub xattrs_left_out: u64,
}

/// What became of a conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// What the tag stands for now: a manifest, or an index.
    pub digest: Digest,
    /// The images, in the order of the index.
    pub images: Vec<ConvertedImage>,
    /// Documents that were carried over as they are: attestations, images that are not for Linux,
    /// images that were lazily readable before.
    pub carried_over: Vec<Digest>,
    /// What the build caches did; `None` if none was asked for.
    pub cache: Option<CacheReport>,
}
