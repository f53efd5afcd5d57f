//! This crate is eStargz: layers that are archives and name the place of every chunk, read into the model.
//!
//! An eStargz layer is a tar.gz that every unpacker can read. Each file, or each chunk of a large one, begins
//! a gzip member of its own, and the end of the blob says where:
//!
//! ```text
//! member   headers of what has no content, the header of the first file
//! member   a chunk, padding, and the headers up to the next chunk
//! …
//! member   an archive of one file, stargz.index.json: the table of contents (TOC)
//! member   empty; its extra field holds the offset of the TOC's member (the footer)
//! ```
//!
//! A member is an extent. Several small chunks may lie in one member, each `innerOffset` decoded bytes into
//! it; of what follows the last chunk in a member nothing is wanted. The manifest states the SHA-256 of the TOC,
//! and the TOC that of every chunk: with that chain nothing else of the blob need be read to trust a chunk.
//! TOC and landmarks (empty marks that divide what a start needs from the rest) are not part of the image.
//!
//! [`Reader`] reads one layer and puts it onto a [`draught_tree::Tree`], whiteouts included. It does no I/O: it
//! says which range it needs. There is no writer: what we write is the format with less metadata to read.
//! Verification of chunks is by their digests, as everywhere.
//!
//! What the format does not have can't be given back: fractions of seconds (its writer rounds them), and bytes
//! of names that are no UTF-8 (its writer puts U+FFFD there; every reader of eStargz shows that).
//!
//! Origin: `containerd/stargz-snapshotter: docs/estargz.md`, and what its version 0.12 writes. Footers of 47
//! bytes are those of the format's predecessor, `google/crfs: stargz`.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod apply;
mod document;
mod entry;
mod error;
mod footer;
mod reader;
#[cfg(test)]
mod tests;
mod time;

pub use apply::Applied;
pub use error::ReadError;
pub use footer::{FOOTER_BYTES_MAX, Footer};
pub use reader::{Limits, Reader, TAIL_BYTES};
