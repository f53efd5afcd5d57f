//! Why layers can't be packed.

use std::io;

use draught_source::SourceError;

use crate::bootstrap::FinishError;
use crate::directory::DirectoryError;
use crate::layer::PackLayerError;
use crate::options::OptionsError;

/// Why the layers of an image can't be packed. What was written of it is blobs, which nothing refers to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The options can't be.
    #[error("the image can't be packed like that")]
    Options {
        /// Why.
        source: Box<OptionsError>,
    },
    /// A layer can't be had.
    #[error("failed to read layer {layer} ({name}) from the source")]
    Open {
        /// Its number, from 1, the lowest.
        layer: usize,
        /// Its digest, or what else is known.
        name: String,
        /// Why.
        source: Box<SourceError>,
    },
    /// A layer can't be packed.
    #[error("failed to pack layer {layer} ({name})")]
    Layer {
        /// Its number, from 1, the lowest.
        layer: usize,
        /// Its digest, or what else is known.
        name: String,
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
    /// Something can't be read from where it is.
    #[error("failed to read {what} from the source")]
    Read {
        /// What.
        what: String,
        /// Why.
        source: SourceError,
    },
    /// Something can't be written to where it belongs.
    #[error("failed to write {what} to the destination")]
    Write {
        /// What.
        what: String,
        /// Why.
        source: SourceError,
    },
    /// The spool directory fails.
    #[error("failed to use the spool directory")]
    Spool {
        /// Why.
        source: io::Error,
    },
}
