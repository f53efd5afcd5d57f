//! This crate is what tests share: images, registries with faults, tree comparison, real tools.
#![forbid(unsafe_code)]
