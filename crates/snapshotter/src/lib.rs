//! This crate is containerd's remote snapshotter: snapshots, their mounts, and which of their layers are lazy.
#![forbid(unsafe_code)]
