//! What can go wrong with an image.

use draught_digest::Digest;
use draught_oci::{ParseError, Platform};
use draught_source::SourceError;

use crate::dictionary::DictionaryError;
use crate::directory::DirectoryError;
use crate::import::OpenError;
use crate::options::OptionsError;
use crate::pack::PackError;

/// Why an image can't be converted. No tag has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The options can't be.
    #[error("the image can't be packed like that")]
    Options {
        /// Why.
        source: Box<OptionsError>,
    },
    /// Its layers can't be packed.
    #[error(transparent)]
    Pack(Box<PackError>),
    /// The source can't be read.
    #[error("failed to read {what} from the source")]
    Read {
        /// What.
        what: String,
        /// Why.
        source: SourceError,
    },
    /// The destination can't be written.
    #[error("failed to write {what} to the destination")]
    Write {
        /// What.
        what: String,
        /// Why.
        source: SourceError,
    },
    /// There is no image for the platform.
    #[error(
        "the source has no image for {wanted}, it has: {}",
        available.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    NoPlatform {
        /// The platform.
        wanted: Box<Platform>,
        /// What there is.
        available: Vec<Platform>,
    },
    /// The image is for another system.
    #[error("the image is for {platform}: only images for linux can be converted")]
    System {
        /// What it is for.
        platform: Platform,
    },
    /// The image can't be converted: it is none, or of a format that can't be read.
    #[error("manifest {manifest} can't be converted: {why}")]
    Format {
        /// The manifest.
        manifest: Digest,
        /// What it is.
        why: String,
    },
    /// A layer is no tar archive that we know.
    #[error("layer {layer} ({digest}) has the unknown media type {media_type:?}")]
    MediaType {
        /// Its number, from 1, the lowest.
        layer: usize,
        /// Its digest.
        digest: Digest,
        /// The media type.
        media_type: String,
    },
    /// Manifest and configuration do not fit.
    #[error("the manifest has {layers} layers, the image's configuration {diff_ids}")]
    DiffIds {
        /// Layers of the manifest.
        layers: usize,
        /// Layers of the configuration.
        diff_ids: usize,
    },
    /// A directory can't be read.
    #[error("failed to read the directory")]
    OpenDirectory {
        /// Why.
        source: DirectoryError,
    },
    /// The metadata of an image can't be read.
    #[error("failed to open {what}")]
    Open {
        /// Which image.
        what: String,
        /// Why.
        source: Box<OpenError>,
    },
    /// A dictionary is none.
    #[error("{what} can't be a chunk dictionary")]
    Dictionary {
        /// Which.
        what: String,
        /// Why not.
        source: DictionaryError,
    },
    /// A document that was written can't be read: it is over a limit.
    #[error("failed to write the image's {what}")]
    Document {
        /// Which.
        what: &'static str,
        /// Why.
        source: ParseError,
    },
    /// An annotation that says what readers rely on.
    #[error(
        "the annotation {key:?} can't be set: converted images say something with it themselves"
    )]
    Annotation {
        /// Which.
        key: String,
    },
    /// A way to make an image known that can't be.
    #[error("{what} is not possible: {why}")]
    Publish {
        /// Which.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// Indexes within indexes within indexes.
    #[error("index {digest} is nested too deeply")]
    Nested {
        /// The innermost that was looked at.
        digest: Digest,
    },
}

impl From<PackError> for ConvertError {
    fn from(source: PackError) -> Self {
        Self::Pack(Box::new(source))
    }
}
