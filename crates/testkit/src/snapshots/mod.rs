//! Proof that a snapshotter is right: conversations that real clients had with others ([`replay`]), and
//! what containerd takes for granted ([`conformance`]).
//!
//! Both take a [`Target`]: a snapshotter's own socket, or containerd's with the name of one of its
//! snapshotters. They wait for every answer, on whatever thread they are called.

mod client;
pub mod conformance;
#[cfg(test)]
mod model;
mod mounting;
pub mod replay;
mod unpack;

pub use client::{Labels, Snapshots, Target};
pub use mounting::{Mounted, Shape, mount_all};
pub use unpack::{Whiteouts, unpack};
