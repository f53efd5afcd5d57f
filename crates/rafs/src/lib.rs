//! This crate is RAFS v6: bootstraps and data blobs, to and from the model.
//!
//! A nydus image is data blobs, one for each layer that brings data ([`blob`]), and one bootstrap with the
//! metadata of all of it ([`bootstrap`]). Origin: `dragonflyoss/nydus` 2.2 and later; the modules name the files.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod blob;
pub mod bootstrap;
