//! This crate is the daemon: images attached, mounted and filled on demand by a worker that a keeper outlives.
#![forbid(unsafe_code)]
