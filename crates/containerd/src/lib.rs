//! This crate is containerd's gRPC services, as client and as server, over Unix sockets.
//!
//! Messages and services are generated from `proto/`, which states in our words what containerd's API (v1.11) has;
//! [`connect`] makes the channel that clients take, [`in_namespace`] the request.
#![forbid(unsafe_code)]

mod channel;

pub use channel::{ConnectError, NAMESPACE_HEADER, connect, in_namespace, namespace_of};
pub use prost;
pub use prost_types;
pub use tonic;

/// All modules, nested as the packages are.
#[allow(
    clippy::allow_attributes,
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    clippy::nursery,
    reason = "generated"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/all.rs"));
}

pub use generated::containerd::services::content::v1 as content;
pub use generated::containerd::services::images::v1 as images;
pub use generated::containerd::services::introspection::v1 as introspection;
pub use generated::containerd::services::leases::v1 as leases;
pub use generated::containerd::services::namespaces::v1 as namespaces;
pub use generated::containerd::services::snapshots::v1 as snapshots;
pub use generated::containerd::services::version::v1 as version;
pub use generated::containerd::types;
pub use generated::runtime::v1 as cri;
