//! This crate is OCI documents: descriptors, manifests, indexes, image configurations, references and media types.
#![forbid(unsafe_code)]
