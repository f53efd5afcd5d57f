//! This crate is containerd's remote snapshotter: snapshots, their mounts, and which of their layers are lazy.
//!
//! It runs in the daemon's worker ([`start`]). Snapshots are records in a database; what is read lazily lies in the
//! node's store, and all lazy layers of a chain are one mount. Layers that can't be lazy are left to the client, one by
//! one, and it is said why.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod core;
mod counts;
pub mod cri;
mod database;
mod directories;
mod error;
mod filter;
mod images;
mod labels;
mod mounted;
mod mounts;
mod record;
mod records;
mod recover;
mod run;
mod server;
mod stack;
mod state;

pub use error::Error;
pub use filter::{FilterError, check as check_filters};
pub use run::{Settings, start};
