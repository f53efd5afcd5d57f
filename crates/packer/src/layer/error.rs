//! What can go wrong with a layer.

use std::io;

use draught_codec::{EncodeError, LayerError};
use draught_digest::Digest;
use draught_rafs::blob::BlobWriteError;
use draught_rafs::bootstrap;
use draught_tar::TarError;
use draught_tree::ApplyError;

use crate::directory::DirectoryError;

/// Why a layer can't be packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackLayerError {
    /// The stream can't be had or decoded.
    #[error("failed to decode the layer")]
    Decode {
        /// Why.
        source: LayerError,
    },
    /// The stream has another length than its descriptor says.
    #[error(
        "the layer has {} {got_bytes} bytes, its descriptor says {expected_bytes}",
        if got_bytes < expected_bytes { "only" } else { "at least" }
    )]
    Size {
        /// What the descriptor says.
        expected_bytes: u64,
        /// How many came.
        got_bytes: u64,
    },
    /// The stream has another digest than its descriptor says.
    #[error("the layer has digest {got}, its descriptor says {expected}")]
    Digest {
        /// What the descriptor says.
        expected: Digest,
        /// What came.
        got: Digest,
    },
    /// The archive has another digest than the image's configuration says.
    #[error("the layer's archive has digest {got}, the image's configuration says {expected}")]
    DiffId {
        /// What the configuration says.
        expected: Digest,
        /// What came.
        got: Digest,
    },
    /// The archive can't be read.
    #[error("failed to read the layer's archive")]
    Tar {
        /// Why.
        source: TarError,
    },
    /// An entry can't be part of the image.
    #[error("failed to apply an entry of the layer")]
    Apply {
        /// Why.
        source: ApplyError,
    },
    /// A file of a directory can't be read.
    #[error("failed to read the directory")]
    Directory {
        /// Why.
        source: DirectoryError,
    },
    /// A file has other content than its size says.
    #[error("file {path:?} ended {missing_bytes} bytes too early")]
    Short {
        /// Its path.
        path: String,
        /// How much is missing.
        missing_bytes: u64,
    },
    /// A chunk can't be compressed.
    #[error("failed to compress a chunk")]
    Encode {
        /// Why.
        source: EncodeError,
    },
    /// The blob would be larger than the format allows.
    #[error("failed to lay out the blob")]
    Blob {
        /// Why.
        source: BlobWriteError,
    },
    /// The layer's own bootstrap can't be written.
    #[error("failed to write the layer's own bootstrap")]
    Bootstrap {
        /// Why.
        source: bootstrap::WriteError,
    },
    /// The blob can't be written.
    #[error("failed to write the blob to the spool directory")]
    Spool {
        /// Why.
        source: io::Error,
    },
    /// The archive can't be written.
    #[error("failed to write the layer's archive")]
    Archive {
        /// Why.
        source: draught_tar::WriteError,
    },
    /// The layer can't be written as eStargz.
    #[error("failed to write the layer as eStargz")]
    Estargz {
        /// Why.
        source: Box<draught_estargz::WriteError>,
    },
    /// A chunk of the image can't be read back.
    #[error("chunk {chunk} of the image is not to be had")]
    Chunk {
        /// Its number in the image.
        chunk: u32,
        /// Why.
        source: io::Error,
    },
    /// There are too many chunks.
    #[error("the image has more than 2^32 chunks")]
    TooManyChunks,
    /// Another thread ended before its work; it says why itself.
    #[error("packing was given up")]
    Aborted,
}
