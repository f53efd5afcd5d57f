//! What commands and daemon say to each other: one JSON document a line over a Unix socket; the
//! command sends one request, the daemon answers with one reply.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::state::Origin;

/// Longest request or reply in bytes: a list of some thousands of mounts.
pub(crate) const LINE_BYTES_MAX: u64 = 16 << 20;

/// What a command asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Is anybody there?
    Ping,
    /// Mount an image.
    Mount {
        /// Where it comes from.
        origin: Origin,
        /// Where to mount it: an absolute path of a directory.
        dir: PathBuf,
    },
    /// Unmount it.
    Umount {
        /// Where it is mounted.
        dir: PathBuf,
    },
    /// What is mounted?
    Ps,
    /// Unmount everything and stop.
    Stop,
    /// Replace the worker.
    Upgrade {
        /// The program that is to serve from now on.
        executable: PathBuf,
    },
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Reply {
    /// Done.
    Done,
    /// It is mounted.
    Mounted(MountStatus),
    /// What is mounted.
    Status(DaemonStatus),
    /// It can't be done; the whole chain of reasons, the outermost first.
    Failed(Vec<String>),
}

/// The daemon and its mounts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Process that holds what must outlive a crash.
    pub keeper_pid: u32,
    /// Process that serves.
    pub worker_pid: u32,
    /// Version of the worker.
    pub version: String,
    /// All live mounts.
    pub mounts: Vec<MountStatus>,
}

/// A live mount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountStatus {
    /// The image, as it was asked for.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Digest of its manifest.
    pub digest: String,
    /// Where it is mounted.
    pub dir: PathBuf,
    /// How it is served.
    pub transport: String,
    /// Whether it was unmounted but is still in use, such as in another mount namespace.
    pub detached: bool,
    /// Decoded bytes of all its chunks, in whole blocks.
    pub bytes_total: u64,
    /// How many of them are on this node.
    pub bytes_present: u64,
    /// Stored bytes of file content fetched for it since the worker started.
    pub bytes_fetched: u64,
    /// Reads of ranges that were not there.
    pub faults: u64,
    /// What went wrong last, if anything.
    pub last_error: Option<String>,
}
