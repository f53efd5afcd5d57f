//! This crate is the daemon: images attached, mounted and filled on demand by a worker that a keeper
//! outlives.
//!
//! [`keeper`] holds what must not die; [`worker`] does the work; [`Client`] is how commands talk to them.
#![forbid(unsafe_code)]

mod attach;
mod client;
mod control;
mod engine;
mod fill;
pub mod guard;
mod handover;
pub mod keeper;
mod layout;
mod link;
mod mounts;
mod probe;
mod record;
mod server;
mod source;
mod state;
pub mod worker;

pub use client::{Client, ClientError};
pub use control::{DaemonStatus, MountStatus};
pub use draught_fill::Settings as PlannerSettings;
pub use layout::Layout;
pub use link::adopt;
pub use probe::{Probe, Trial, probe};
pub use state::{MountRecord, Origin, boot_id};
