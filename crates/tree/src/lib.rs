//! This crate is the model: one tree of files and one map from their content to chunks, extents
//! and blobs. Every format is read into it and every way of mounting or writing is fed from it.
//!
//! A [`Tree`] holds inodes in an arena ([`NodeId`] indexes it; the root is [`Tree::ROOT`]). A regular
//! file's content is a list of [`ChunkId`]s into the [`ChunkMap`]; a chunk lies in an [`Extent`], the
//! smallest range of a [`Blob`] that can be decoded by itself. Layers are applied to a tree entry by
//! entry ([`Tree::apply`]), lowest layer first, with OCI's whiteouts and opaque directories. Where a layer between
//! them comes from somebody else, several trees are stacked by overlayfs ([`Tree::on_others`], [`Tree::beside`]).
#![forbid(unsafe_code)]

mod apply;
mod chunk;
mod entry;
mod node;
mod offset;
mod stack;
#[cfg(test)]
mod stack_tests;
#[cfg(test)]
mod tests;
mod unused;
mod walk;

pub use apply::{ApplyError, Limits};
pub use chunk::{Blob, BlobId, Chunk, ChunkId, ChunkMap, Compression, Extent, ExtentId};
pub use entry::{Entry, EntryKind, Meta, Xattrs};
pub use node::{Kind, Name, Node, NodeId, Tree};
pub use offset::{BLOCK_BYTES, BlobOffset, ChunkOffset, DeviceOffset, FileOffset, blocks_of};
pub use walk::Walk;
