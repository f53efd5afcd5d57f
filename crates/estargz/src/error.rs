//! Why a layer can't be read.

use draught_codec::LayerError;
use draught_digest::{Digest, ParseDigestError};
use draught_tar::TarError;
use draught_tree::ApplyError;

use crate::document::TOC_NAME;

/// Why a layer can't be read lazily. Paths are shown with bytes that aren't UTF-8 replaced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It does not end as an eStargz layer must.
    #[error("it does not end in an eStargz footer")]
    Footer,
    /// Its TOC is in another image.
    #[error(
        "its table of contents is not in the layer but in another image, which is not supported"
    )]
    ExternalToc,
    /// The footer points outside of the layer.
    #[error(
        "its footer says that the table of contents begins at byte {offset}, the layer has {bytes}"
    )]
    TocOffset {
        /// What it says.
        offset: u64,
        /// The layer's size.
        bytes: u64,
    },
    /// Something is larger than the limit.
    #[error("{what}: {value}, the limit is {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How large it is.
        value: u64,
        /// How large it may be.
        limit: u64,
    },
    /// Bytes were given that nobody asked for.
    #[error("{bytes} bytes from {start} on were given and not asked for")]
    NotAsked {
        /// Where they begin.
        start: u64,
        /// How many there are.
        bytes: usize,
    },
    /// Not everything was given.
    #[error("it was not given all that it needs")]
    Incomplete,
    /// The TOC can't be decompressed.
    #[error("its table of contents can't be decompressed")]
    Decompress(#[source] LayerError),
    /// The TOC is in no archive.
    #[error("its table of contents is in no archive that can be read")]
    Archive(#[source] TarError),
    /// The TOC is not where the footer says.
    #[error("there is no file {TOC_NAME:?} where its footer says")]
    NoToc,
    /// The TOC is not the one that the manifest names.
    #[error("its table of contents is corrupt: its digest is {got}, the manifest says {expected}")]
    TocDigest {
        /// What the manifest says.
        expected: Digest,
        /// What it is.
        got: Digest,
    },
    /// The TOC is no JSON document of the right shape.
    #[error("its table of contents can't be understood")]
    Json(#[source] serde_json::Error),
    /// The TOC is of another version.
    #[error("its table of contents has version {version}, only 1 is known")]
    Version {
        /// What it says.
        version: u64,
    },
    /// An entry contradicts itself or others.
    #[error("entry {path:?} of its table of contents: {problem}")]
    Entry {
        /// The entry's path.
        path: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// An entry is of a kind that is not known.
    #[error("entry {path:?} of its table of contents is of the unknown type {kind:?}")]
    Kind {
        /// The entry's path.
        path: String,
        /// What it says.
        kind: String,
    },
    /// Content that nothing verifies.
    #[error(
        "file {path:?} can't be read lazily: its table of contents has no digest of the chunk at byte {offset}"
    )]
    NoDigest {
        /// The file's path.
        path: String,
        /// Where in the file the chunk begins.
        offset: u64,
    },
    /// A digest is none.
    #[error("file {path:?} has a chunk whose digest can't be read")]
    Digest {
        /// The file's path.
        path: String,
        /// Why not.
        source: ParseDigestError,
    },
    /// A chunk is too large, or begins where nothing can map it.
    #[error("file {path:?} can't be read lazily: {problem}")]
    Chunk {
        /// The file's path.
        path: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// An entry can't be part of the tree.
    #[error("its table of contents has an entry that can't be")]
    Apply(#[source] ApplyError),
}

/// As much of a path as an error message should show, in bytes.
const SHOWN_BYTES_MAX: usize = 256;

pub(crate) fn show(path: &str) -> String {
    show_bytes(path.as_bytes())
}

pub(crate) fn show_bytes(path: &[u8]) -> String {
    let shown = path.get(..SHOWN_BYTES_MAX).unwrap_or(path);
    String::from_utf8_lossy(shown).into_owned()
}
