//! This crate is EROFS images: written from a tree and a placement, and read back for checks.
#![forbid(unsafe_code)]
