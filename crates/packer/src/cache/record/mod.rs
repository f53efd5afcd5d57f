//! The record of a packed layer: what the packer did to its state, to be done again without the layer.
//!
//! An image's bootstrap would not do as the state after a layer. It has nothing of the files that upper
//! layers hide, whose chunks later files share nevertheless, nor of attributes that it can't express; and
//! that of the whole image, once for each of its layers, is quadratic. So a record holds the layer's own
//! entries, in their order, with the chunks that their content became, and the table of the blob that is
//! new. Applied on top of the same lower layers they give the same tree, the same map and the same known
//! chunks, down to their order; and so the same bytes of all that follows.
//!
//! Layout: [`MAGIC`]; the length of the head, 8 bytes, little endian; the head in gzip; the entries in
//! gzip. Inside, numbers are LEB128, texts and lists have their length before them. The format has no
//! version but the one in its magic: another one is a miss.

mod decode;
mod encode;
mod replay;
#[cfg(test)]
mod tests;

pub use decode::RecordError;
pub(crate) use encode::RecordWriter;
pub(crate) use replay::Replay;

use draught_rafs::blob::{BlobInfo, ChunkTable};

use crate::progress::LayerReport;

/// How every record begins.
const MAGIC: &[u8; 8] = b"drlayer1";

/// What a record says beside the entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// How many chunks the image had before.
    pub(crate) first_chunk: u32,
    pub(crate) report: LayerReport,
    /// The blob that is new, and its extents and chunks; blob 0 and extent 0 are its own.
    pub(crate) blob: Option<(BlobInfo, ChunkTable)>,
}

// What an entry is.
const END: u8 = 0;
const DIRECTORY: u8 = 1;
const FILE: u8 = 2;
const SYMLINK: u8 = 3;
const HARD_LINK: u8 = 4;
const CHAR_DEVICE: u8 = 5;
const BLOCK_DEVICE: u8 = 6;
const FIFO: u8 = 7;
const SOCKET: u8 = 8;

// How an extent or table is stored.
const STORED: [(u8, draught_tree::Compression); 4] = [
    (0, draught_tree::Compression::None),
    (1, draught_tree::Compression::Lz4Block),
    (2, draught_tree::Compression::Zstd),
    (3, draught_tree::Compression::Gzip),
];

// How a digest was made.
const DIGESTS: [(u8, draught_digest::Algorithm); 2] = [
    (0, draught_digest::Algorithm::Sha256),
    (1, draught_digest::Algorithm::Blake3),
];
