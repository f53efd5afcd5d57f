//! What commands and daemon say to each other: one JSON document a line over a Unix socket; the
//! command sends one request, the daemon answers with one reply.

use std::ops::AddAssign;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::state::Origin;
use crate::trace::ImageTrace;
use crate::transport::Transport;

/// Longest request in bytes: a large profile.
pub(crate) const REQUEST_BYTES_MAX: u64 = 16 << 20;
/// Longest reply in bytes: what happened to an image of some million files.
pub(crate) const REPLY_BYTES_MAX: u64 = 512 << 20;

/// What a command asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Is anybody there?
    Ping,
    /// Mount an image.
    Mount(MountRequest),
    /// Unmount it.
    Umount {
        /// Where it is mounted.
        dir: PathBuf,
    },
    /// What is mounted?
    Ps,
    /// Remove an image that is not mounted from the store.
    Rm {
        /// A reference that it was mounted by, or its digest.
        reference: String,
    },
    /// Remove what nobody refers to.
    Gc {
        /// Images too that were not used for so many seconds.
        unused_for_s: Option<u64>,
    },
    /// What does the store hold, and for whom?
    Df,
    /// What was touched of an image, as a profile?
    ProfileExport {
        /// A reference that it was mounted by, or its digest.
        reference: String,
    },
    /// This is what a start of an image touches.
    ProfileImport {
        /// The image's reference.
        reference: String,
        /// The profile.
        text: String,
    },
    /// What happened since an image was mounted?
    Trace {
        /// Its reference.
        reference: String,
    },
    /// All numbers, as Prometheus reads them.
    Metrics,
    /// Unmount everything and stop.
    Stop,
    /// Replace the worker.
    Upgrade {
        /// The program that is to serve from now on.
        executable: PathBuf,
    },
}

/// An image to mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountRequest {
    /// Where it comes from.
    pub origin: Origin,
    /// Where to mount it: an absolute path of a directory.
    pub dir: PathBuf,
    /// Whether all of it is to be fetched in the background.
    pub prefetch_all: bool,
    /// How reads are to reach the daemon; none: the best way that there is.
    pub transport: Option<Transport>,
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
    /// What was removed.
    Removed(Removed),
    /// What the store holds.
    Df(DfReport),
    /// A text.
    Text(String),
    /// What happened to an image.
    Trace(Box<ImageTrace>),
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
    /// Reads that the kernel asked the worker about, whether anything was missing or not.
    pub events: u64,
    /// All live mounts.
    pub mounts: Vec<MountStatus>,
    /// Layers that clients asked the snapshotter for.
    #[serde(default)]
    pub layers: Vec<LayerStatus>,
}

/// A layer that a client asked the snapshotter for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerStatus {
    /// The image that it was asked for with.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Digest of its blob, if the client said.
    pub digest: Option<String>,
    /// Name of its snapshot.
    pub snapshot: String,
    /// Whether it is read on demand; else the client pulled it.
    pub lazy: bool,
    /// Why it is not lazy.
    pub why: Option<String>,
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
    /// Whether reads still come to the daemon.
    pub lazy: bool,
    /// Why it is not lazy, or can't be served.
    pub why: Option<String>,
    /// Whether all of it is being fetched without being asked for.
    #[serde(default)]
    pub prefetch_all: bool,
    /// Decoded bytes of all its chunks, in whole blocks.
    pub bytes_total: u64,
    /// How many of them are on this node.
    pub bytes_present: u64,
    /// How many of them the store knew when the image was attached: what other images brought.
    pub bytes_shared: u64,
    /// Stored bytes of file content fetched for it since the worker started.
    pub bytes_fetched: u64,
    /// Requests for them.
    pub requests: u64,
    /// Reads of ranges that were not there.
    pub faults: u64,
    /// How long half of these waited at most, in microseconds (the next power of two).
    pub fault_median_us: u64,
    /// How long 99 of 100 waited at most, likewise.
    pub fault_p99_us: u64,
    /// What went wrong last, if anything.
    pub last_error: Option<String>,
    /// Where its blobs are read from.
    pub sources: Vec<String>,
}

/// What was removed from the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Images.
    pub images: u64,
    /// Devices.
    pub devices: u64,
    /// Bytes that were given back to the filesystem.
    pub bytes: u64,
}

impl AddAssign for Removed {
    fn add_assign(&mut self, other: Self) {
        self.images += other.images;
        self.devices += other.devices;
        self.bytes += other.bytes;
    }
}

/// What the store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DfReport {
    /// Every image in it, mounted or not.
    pub images: Vec<DfImage>,
    /// Devices.
    pub devices: u64,
    /// Bytes of chunks that are there, in whole blocks, each counted once.
    pub bytes_present: u64,
    /// The same, counted for each image that has them: what it would take without sharing.
    pub bytes_of_images: u64,
    /// Bytes that the devices' data takes on disk.
    pub data_bytes_on_disk: u64,
    /// Bytes that the whole store takes on disk.
    pub bytes_on_disk: u64,
    /// What it may take.
    pub cache_bytes_max: Option<u64>,
    /// By how much it takes more than that, and for whom.
    pub over_limit: Option<OverLimit>,
}

/// An image in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DfImage {
    /// What it was mounted by.
    pub references: Vec<String>,
    /// Digest of its manifest.
    pub digest: String,
    /// Whether it is mounted.
    pub mounted: bool,
    /// When it was last mounted or unmounted, in seconds since 1970.
    pub last_used: u64,
    /// Bytes of all its chunks, in whole blocks.
    pub bytes_total: u64,
    /// How many of them no other image in the store has.
    pub bytes_own: u64,
    /// How many others have too.
    pub bytes_shared: u64,
    /// How many are there.
    pub bytes_present: u64,
    /// How many are not.
    pub bytes_missing: u64,
}

/// The store is larger than it may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverLimit {
    /// By how many bytes.
    pub bytes: u64,
    /// The references of the images that are mounted, which are never evicted.
    pub mounted: Vec<String>,
}
