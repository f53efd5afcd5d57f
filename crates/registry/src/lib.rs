//! This crate is the embedded registry: OCI distribution over a directory.
#![forbid(unsafe_code)]
