//! This crate is where blobs come from and go to: registries, OCI layouts, docker archives; with credentials and retries.
#![forbid(unsafe_code)]
