//! What is to be converted, and what became of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use draught_digest::Digest;
use draught_oci::{Location, Platform};

use crate::cache::{CacheOptions, CacheReport};
use crate::pack::{BlobPlace, Output};
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

/// How a converted image is made known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Publish {
    /// The tag stands for it.
    #[default]
    Tag,
    /// The tag stands for an index with the original images and the converted ones: who knows the lazy
    /// format chooses those, everybody else the originals. For nydus images only.
    Merged,
    /// No tag changes: it is a referrer of the original.
    Referrer,
}

/// How an image is to be converted.
#[derive(Debug, Clone, Default)]
pub struct ConvertOptions {
    /// How its layers are written.
    pub output: Output,
    /// Which platforms.
    pub platform: PlatformChoice,
    /// Where layers are that were converted before.
    pub cache: CacheOptions,
    /// nydus images whose chunks are not stored again. Of chunks that several have, those of the first are
    /// used.
    pub dictionaries: Vec<Location>,
    /// More of them, such as what a node happens to have: those that are of no use are left out.
    pub more_dictionaries: Vec<Location>,
    /// How it is made known.
    pub publish: Publish,
    /// Annotations that its manifest gets, and its index if it is one.
    pub annotations: BTreeMap<String, String>,
    /// Where data blobs go, if not into the image's repository.
    pub blobs: Option<BlobPlace>,
    /// A directory for what a conversion that ends before its time has done, so that the next one goes on
    /// from there; of this user alone. `None`: it begins anew.
    pub journal: Option<PathBuf>,
    /// Converts even if the destination has the same image, made with the same options.
    pub force: bool,
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
    /// Size in bytes of the layer with its bootstrap; 0 where there is none.
    pub bootstrap_layer_bytes: u64,
    /// Extended attributes that no image of this format can hold, and that were left out.
    pub xattrs_left_out: u64,
}

/// What became of a conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// What the tag stands for now: a manifest, or an index. Of a referrer, its manifest.
    pub digest: Digest,
    /// The images, in the order of the index.
    pub images: Vec<ConvertedImage>,
    /// Documents that were carried over as they are: attestations, images that are not for Linux,
    /// images that have the format already, originals that lie beside what they became.
    pub carried_over: Vec<Digest>,
    /// What the build caches did; `None` if none was asked for.
    pub cache: Option<CacheReport>,
    /// Whether the destination had it all, made from the same image with the same options: then nothing was
    /// read but manifests, and nothing written.
    pub unchanged: bool,
}
