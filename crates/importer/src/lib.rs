//! This crate is the detection of an image's format and the dispatch to the crate that reads it.
#![forbid(unsafe_code)]
