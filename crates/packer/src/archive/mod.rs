//! Layers that stay archives: written again as gzip, zstd or eStargz.
//!
//! One thread reads, checks and decodes the layer; one looks at its entries, leaves out what belongs to
//! another format, and cuts the archive into pieces; some compress, one writes. Queues between them are
//! bounded.

mod compress;
mod content;
mod entries;
mod flat;
mod write;

pub(crate) use compress::{Compressor, compress};
pub(crate) use entries::is_of_estargz;
pub(crate) use flat::TreeContent;
pub(crate) use write::{Written, write_content, write_layer};
