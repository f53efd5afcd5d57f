//! This crate is RAFS v6: bootstraps and data blobs, to and from the model.
#![forbid(unsafe_code)]

pub mod blob;
pub mod bootstrap;
