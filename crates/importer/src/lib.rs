//! This crate is the detection of an image's format and the dispatch to the crate that reads it.
//!
//! [`detect`] says from a manifest alone whether an image can be mounted lazily and as what.
//! [`Import`] reads one in steps: it says what it needs of which blob, is given the bytes, and ends with
//! a [`Opened`]: one tree whose map says where every chunk lies. It does no I/O; whoever drives it fetches what
//! [`Import::step`] asks for, in any order or at once, and calls it again.
//!
//! ```text
//! let mut import = Import::new(&manifest, &Limits::default())?;
//! let opened = loop {
//!     match import.step()? {
//!         Step::Sizes(blobs) => for blob in blobs { import.give_size(&blob, size_elsewhere(&blob)?); },
//!         Step::Read(reads) => for read in reads { let bytes = fetch(&read); import.give(&read, bytes)?; },
//!         Step::Done(opened) => break opened,
//!     }
//! };
//! ```
//!
//! A blob that is needed whole is verified here, against the manifest; ranges are verified by what the manifest says
//! of them or what was read before them, or lead to chunks whose own digests are verified when they are filled.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod annotation;
mod detect;
mod import;
mod layers;
mod metadata_layer;
mod nydus;
#[cfg(test)]
mod tests;

pub use annotation::{
    BLOB_BACKEND, BLOB_FROM, ESTARGZ_TOC_DIGEST, ESTARGZ_UNCOMPRESSED_BYTES, LAZY_OS_FEATURE,
    NYDUS_ARTIFACT_TYPE, NYDUS_BLOB, NYDUS_BLOB_IDS, NYDUS_BLOB_MEDIA_TYPE, NYDUS_BOOTSTRAP,
    NYDUS_BOOTSTRAP_PATH, NYDUS_FS_VERSION,
};
pub use detect::{Format, Plain, detect, estargz_toc};
pub use import::{Details, Estargz, Import, ImportError, Limits, Nydus, Opened, Read, Step};
pub use layers::Part;
pub use metadata_layer::{MetadataLayerError, metadata_from_layer};
