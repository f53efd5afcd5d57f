//! What happened to a mounted image, for people to look at.

use serde::{Deserialize, Serialize};

/// What happened to an image since it was mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageTrace {
    /// The image, as it was asked for.
    pub reference: String,
    /// Digest of its manifest.
    pub digest: String,
    /// How it is served.
    pub transport: String,
    /// Milliseconds since it was mounted.
    pub age_ms: u64,
    /// Bytes of its chunks, in whole blocks.
    pub bytes_total: u64,
    /// How many of them are on this node.
    pub bytes_present: u64,
    /// Stored bytes that were fetched for it.
    pub bytes_fetched: u64,
    /// How many bytes of its chunks the store knew when it was attached.
    pub bytes_shared: u64,
    /// Its blobs.
    pub blobs: Vec<TraceBlob>,
    /// Requests, in the order in which they ended.
    pub fetches: Vec<TraceFetch>,
    /// Reads that waited, in the order in which they were answered.
    pub faults: Vec<TraceFault>,
    /// Its files, in the order of the tree.
    pub areas: Vec<TraceArea>,
    /// Requests and reads beyond those that are kept.
    pub dropped: u64,
}

/// A blob of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceBlob {
    /// Its digest.
    pub digest: String,
    /// Its stored bytes.
    pub stored_bytes: u64,
    /// Where it is read from.
    pub source: String,
}

/// How urgent a request was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TracePriority {
    /// A reader waited.
    Demand,
    /// A reader was expected.
    Prefetch,
    /// Nobody was.
    Background,
}

/// A request for a range of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceFetch {
    /// When it began, in milliseconds since the mount.
    pub at_ms: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// The blob, by index.
    pub blob: u32,
    /// The first stored byte.
    pub start: u64,
    /// How many.
    pub bytes: u64,
    /// How urgent it was.
    pub priority: TracePriority,
    /// Whether the bytes came.
    pub ok: bool,
}

/// A read that waited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceFault {
    /// When it began, in milliseconds since the mount.
    pub at_ms: u64,
    /// How long it waited, in microseconds.
    pub waited_us: u64,
    /// The file, without a leading slash; of files that share the content, one.
    pub path: String,
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Whether it got them.
    pub ok: bool,
}

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceArea {
    /// Its path, without a leading slash.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// How many of its bytes are on this node.
    pub present: u64,
    /// How many of its bytes lie where another image brought them.
    pub shared: u64,
    /// When it was touched first, in milliseconds since the mount.
    pub touched_at_ms: Option<u64>,
}
