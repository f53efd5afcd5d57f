//! This crate is the daemon: images attached, mounted and filled on demand by a worker that a keeper
//! outlives.
//!
//! [`keeper`] holds what must not die; [`worker`] does the work; [`Client`] is how commands talk to them.
#![forbid(unsafe_code)]

mod ahead;
mod attach;
mod catalog;
mod client;
mod collect;
mod control;
mod descriptor_store;
mod device_files;
mod device_reads;
mod engine;
mod error;
mod fill;
pub mod guard;
mod handover;
mod image;
mod image_files;
pub mod keeper;
mod kept_blob;
mod keychain;
mod latency;
mod layout;
mod learn;
mod link;
mod looking;
mod metrics;
mod mounts;
mod paths;
mod patience;
mod place;
mod probe;
mod profiles;
mod record;
mod restore;
mod served;
mod server;
mod service;
mod sessions;
mod source;
mod state;
mod touches;
mod trace;
mod transport;
pub mod worker;

pub use client::{Client, ClientError};
pub use control::{
    DaemonStatus, DfImage, DfReport, LayerStatus, MountRequest, MountStatus, OverLimit, Removed,
};
pub use draught_fill::Settings as PlannerSettings;
pub use kept_blob::{KeptBlob, KeptBlobs, KeptError, Piece};
pub use layout::Layout;
pub use link::adopt;
pub use probe::{Choice, Probe, Trial, probe};
pub use service::{Content, Fetched, Node, NodeError, Service, Start, Starting};
pub use source::RegistrySettings;
pub use state::{MountRecord, Origin, boot_id};
pub use trace::{ImageTrace, TraceArea, TraceBlob, TraceFault, TraceFetch, TracePriority};
pub use transport::Transport;
