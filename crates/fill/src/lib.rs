//! This crate is the planner: which ranges of which blobs to fetch, in what order, for the faults at
//! hand. It does no I/O, reads no clock and draws no random number: time comes in as milliseconds since
//! an instant of the caller's choice, which never goes back.
//!
//! A [`Fault`] goes in ([`Planner::fault`]), [`Fetch`]es come out ([`Planner::next_fetch`]); the caller
//! carries them out, writes what it got to the device, and reports ([`Planner::fetched`]); then the
//! fault's [`Ready`] comes out ([`Planner::next_ready`]). Every fault gets exactly one, at its deadline
//! at the latest.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

mod device_map;
mod planner;
mod queue;
mod settings;
#[cfg(test)]
mod simulation;

use std::ops::Range;

pub use device_map::{DeviceMap, EXTENT_BYTES_MAX, MapChunk, MapError, MapExtent};
pub use planner::Planner;
pub use settings::Settings;

/// A device, by a number that the caller chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub u32);

/// A fetch, by a number that the planner chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchId(pub u64);

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
    /// Nobody is expected; the device is to become complete.
    Background,
}

/// A ranged read of a blob that is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// To report with.
    pub id: FetchId,
    /// The device to fill.
    pub device: DeviceId,
    /// The extents to decode, by their index in the device's map; all lie in `range`.
    pub extents: Range<u32>,
    /// The stored bytes to read.
    pub range: Range<u64>,
    /// How urgent it is.
    pub priority: Priority,
}

/// Why a fetch or an extent of it did not get onto the device.
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
    /// The device's filesystem is full: not tried again.
    NoSpace,
    /// The device can't be written: not tried again.
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
