//! This crate is compression: streams of layers, and single extents of blobs, decoded within limits and verified.
//!
//! [`LayerDecoder`] reads a whole layer, once, from its first byte to its last: tar, tar+gzip (of any
//! number of members) or tar+zstd (of any number of frames), told apart by their first bytes as every
//! container runtime does. [`Decoder`] and [`Encoder`] work on extents: the short ranges that lazily
//! read blobs are made of. Both keep their contexts between calls. [`PieceEncoder`] writes whole layers, a piece
//! at a time.
//!
//! Origins: gzip RFC 1952, zstd RFC 8878, LZ4 block format 1.5.1
//! (<https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>). There is no gzip encoder for extents:
//! the one format that we write with such extents compresses chunks and headers together, and does so itself.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod extent;
mod hashing;
mod layer;
mod piece;
#[cfg(test)]
mod tests;

pub use extent::{DecodeError, Decoder, EncodeError, Encoder, LEVEL_DEFAULT};
pub use hashing::{HashingReader, HashingWriter};
pub use layer::{DETECT_BYTES, LayerDecoder, LayerError, LayerKind, LayerLimits};
pub use piece::{PieceEncoder, PieceKind};
