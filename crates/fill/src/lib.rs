//! This crate is the planner: which ranges of which blobs to fetch, in what order, for the faults at
//! hand. It does no I/O, reads no clock and draws no random number: time comes in as milliseconds since
//! an instant of the caller's choice, which never goes back; what is present is asked of a [`Presence`], which
//! reads bits in memory.
//!
//! A device is a file of blocks on which chunks of many images may lie. A [`Feed`] is a blob of an image: it
//! knows which extent of the blob brings which chunks, and where these belong. The same place may be in
//! many feeds, and each is a way to fill it.
//!
//! A [`Fault`] goes in ([`Planner::fault`]), [`Fetch`]es come out ([`Planner::next_fetch`]); the caller
//! carries them out, writes what it got to the devices, and reports ([`Planner::filled`],
//! [`Planner::fetched`]); then the fault's [`Ready`] comes out ([`Planner::next_ready`]). Every fault gets
//! exactly one, at its deadline at the latest.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

mod feed_map;
mod feed_queue;
mod lanes;
mod pace;
mod planner;
mod readahead;
mod settings;
#[cfg(test)]
mod simulation;
mod sources;

use std::ops::Range;
use std::sync::Arc;

pub use feed_map::{EXTENT_BYTES_MAX, FeedChunk, FeedExtent, FeedMap, MapError};
pub use planner::Planner;
pub use settings::Settings;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($of:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $of);
    };
}

number!(
    /// A device, by a number that the caller chose.
    DeviceId(u32)
);
number!(
    /// A feed, by a number that the caller chose.
    FeedId(u32)
);
number!(
    /// A place that blobs are read from, by a number that the caller chose: what it says to one feed holds
    /// for all that are read from it.
    SourceId(u32)
);
number!(
    /// An image, by a number that the caller chose: all get their turn.
    ImageId(u32)
);
number!(
    /// A fetch, by a number that the planner chose.
    FetchId(u64)
);

/// What is on the devices.
pub trait Presence {
    /// Whether all blocks of a range of a device's bytes are there. Called often: no I/O, and what it says may
    /// only change from one call to the planner to the next from "no" to "yes", unless a disk fails.
    fn is_present(&self, device: DeviceId, range: Range<u64>) -> bool;
}

/// A blob of an image, as something to fill devices from.
#[derive(Debug, Clone)]
pub struct Feed {
    /// Its extents, and where their chunks belong.
    pub map: Arc<FeedMap>,
    /// The devices that the map speaks of by index.
    pub devices: Arc<[DeviceId]>,
    /// Where it is read from.
    pub source: SourceId,
    /// Whose it is.
    pub image: ImageId,
}

/// A read of a device, some of which may not be present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The device.
    pub device: DeviceId,
    /// The bytes of the device that are about to be read.
    pub range: Range<u64>,
    /// What [`Ready`] will say; the caller's, used once.
    pub token: u64,
}

/// What somebody waits for comes before what somebody will want, and that before all the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A reader waits.
    Demand,
    /// A reader is expected.
    Prefetch,
    /// Nobody is expected; the devices are to become complete.
    Background,
}

/// A ranged read of a blob that is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// To report with.
    pub id: FetchId,
    /// The feed to read.
    pub feed: FeedId,
    /// The extents to decode, by their index in the feed's map; all lie in `range`. Some may be present.
    pub extents: Range<u32>,
    /// The stored bytes to read.
    pub range: Range<u64>,
    /// How urgent it is.
    pub priority: Priority,
}

/// Why a fetch or an extent of it did not get onto the devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The source can't be reached, is overloaded or broke off: tried again until the deadline.
    Unavailable {
        /// What the source asked for, if it did, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// The source refuses us, or has no such blob: tried again a few times, since both can heal.
    Refused,
    /// What came is not what was asked for: tried again a few times, from any other source first.
    Corrupt,
    /// A device's filesystem is full: not tried again.
    NoSpace,
    /// A device can't be written: not tried again.
    Device,
}

/// The answer to a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The fault's.
    pub token: u64,
    /// Whether all of its range is present now; if not, why, in the last attempt.
    pub result: Result<(), Failure>,
}

/// What there is to do, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Faults that wait.
    pub faults_waiting: usize,
    /// Fetches under way.
    pub fetches_under_way: usize,
    /// Sources that rest after a failure.
    pub sources_backing_off: usize,
    /// Extents that are to be fetched, by priority, the most urgent first.
    pub extents_queued: [usize; 3],
}
