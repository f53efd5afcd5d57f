//! This crate is OCI documents: descriptors, manifests, indexes, image configurations, references and
//! media types.
//!
//! Origin: the OCI image specification v1.1 (<https://github.com/opencontainers/image-spec/tree/v1.1.0>),
//! docker's image manifest version 2, schema 2, and for references the grammar of `distribution/reference`.
//!
//! A [`Document`] is the bytes of a manifest, index or image configuration, their digest, and what they
//! say. The bytes are never written again from the parsed form, so nothing that we do not know is lost;
//! [`Document::edit`] changes one as JSON. [`Document::write`] makes a new one, always with the same bytes
//! for the same content.
//!
//! Nothing here does I/O. Documents are hostile until parsed: sizes are bounded by [`Limits`], a digest
//! that is not SHA-256 is refused by name, and so is a document that could be read as two kinds.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

pub mod annotation;
mod config;
mod descriptor;
mod document;
mod location;
mod manifest;
pub mod media_type;
mod platform;
mod reference;
#[cfg(test)]
mod tests;
mod wire;

pub use config::{History, ImageConfig, RunConfig};
pub use descriptor::{Descriptor, DescriptorError};
pub use document::{Any, Content, Document, Limits, ParseError};
pub use location::{Location, LocationError};
pub use manifest::{Index, Manifest};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError, Selector, is_tag};
