//! What can go wrong with an image.

use std::io;

use draught_digest::Digest;
use draught_oci::{ParseError, Platform};
use draught_source::SourceError;

use crate::bootstrap::FinishError;
use crate::directory::DirectoryError;
use crate::layer::PackLayerError;
use crate::options::OptionsError;

/// Why an image can't be converted. No tag has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The options can't be.
    #[error("the image can't be packed like that")]
    Options {
        /// Why.
        source: OptionsError,
    },
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
    /// The image can't be converted: it is one already, or none.
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
    /// A layer can't be packed.
    #[error("failed to pack layer {layer} ({digest})")]
    Layer {
        /// Its number, from 1, the lowest.
        layer: usize,
        /// Its digest.
        digest: Digest,
        /// Why.
        source: Box<PackLayerError>,
    },
    /// A directory can't be packed.
    #[error("failed to pack the directory")]
    Directory {
        /// Why.
        source: Box<PackLayerError>,
    },
    /// A directory can't be read.
    #[error("failed to read the directory")]
    OpenDirectory {
        /// Why.
        source: DirectoryError,
    },
    /// The bootstrap can't be written.
    #[error("failed to finish the image")]
    Finish {
        /// Why.
        source: FinishError,
    },
    /// A document that was written can't be read: it is over a limit.
    #[error("failed to write the image's {what}")]
    Document {
        /// Which.
        what: &'static str,
        /// Why.
        source: ParseError,
    },
    /// The spool directory fails.
    #[error("failed to use the spool directory")]
    Spool {
        /// Why.
        source: io::Error,
    },
    /// Indexes within indexes within indexes.
    #[error("index {digest} is nested too deeply")]
    Nested {
        /// The innermost that was looked at.
        digest: Digest,
    },
}
