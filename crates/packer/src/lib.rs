//! This crate is the converter: layers in, lazily readable images out, the same bytes every time.
#![forbid(unsafe_code)]
