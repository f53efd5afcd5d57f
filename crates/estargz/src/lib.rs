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
//! says which range it needs. [`write`] writes one from a layer's archive; whoever calls it gives it what to
//! read from and write to. Verification of chunks is by their digests, as everywhere.
//!
//! What the format does not have can't be given back or written:
//!
//! * Names that are not UTF-8. The format's own tool puts U+FFFD there, and every reader of eStargz shows that;
//!   [`write`] refuses such a layer by the name of the file. It can stay as it is: runtimes unpack layers
//!   that have no table, and mount the others of the image.
//! * The order of entries. Of entries that replace others the table has only the last, and a layer in which that is
//!   not the same is refused; [`WriteError::Inexpressible`] says which entry is at fault. What lower layers have is
//!   not known to a writer: of an entry that lies below a symbolic link of a lower layer, and of a hard link to a
//!   file of a lower layer, the format's own readers make something else than unpackers do. (The latter they refuse
//!   to mount, and the layer is unpacked.)
//!
//! The format's own tool rounds times to seconds. All readers take fractions; they are written.
//!
//! Origin: `containerd/stargz-snapshotter: docs/estargz.md`, and what its version 0.12 writes and reads. Footers of 47
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
mod write;

pub use apply::Applied;
pub use error::ReadError;
pub use footer::{FOOTER_BYTES_MAX, Footer};
pub use reader::{Limits, Reader, TAIL_BYTES};
pub use write::{
    CHUNK_BYTES_MAX, LEVEL_DEFAULT, LEVEL_MAX, PACK_BYTES_MAX, WriteError, WriteOptions, Written,
    write,
};
