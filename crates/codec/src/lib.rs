//! This crate is compression: streams of layers, and single extents of blobs, decoded within limits and verified.
#![forbid(unsafe_code)]
