//! One layer: its stream is decoded on one thread, parsed and cut on another, compressed on some, and
//! written on one more, with bounded queues between them.

mod chunker;
mod decode;
mod error;
mod input;
mod jobs;
mod order;
mod own_tree;
mod pipeline;
mod writer;

pub(crate) use chunker::Content;
pub(crate) use decode::{Decoded, PipeReader, PipeWriter, decode, pipe};
pub use error::PackLayerError;
pub use input::LayerInput;
pub(crate) use own_tree::{OwnTree, kind_of};
pub(crate) use pipeline::{Archive, Layer, join, pack_archive, pack_content};
pub(crate) use writer::Written;
