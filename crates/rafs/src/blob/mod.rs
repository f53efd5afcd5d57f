//! Data blobs: what a layer brings, packed so that any chunk of it can be drawn by itself.
//!
//! A blob is written from front to back and never sought in, therefore every tar header *follows* the
//! data that it describes:
//!
//! ```text
//! chunk data                              header "image.blob"
//! chunk-info table, chunk-info header     header "blob.meta"
//! chunk digests, 32 bytes each            header "blob.digest"
//! bootstrap of this layer (optional)      header "image.boot"
//! table of contents, 128 bytes an entry   header "rafs.blob.toc"
//! ```
//!
//! [`BlobWriter`] says which bytes follow the data; [`Toc`] and [`ChunkTable`] read them. No I/O happens
//! here. Origin: `dragonflyoss/nydus` 2.2 to 2.4, `storage/src/meta/`, `builder/src/core/blob.rs`.

mod features;
mod info;
mod raw;
mod table;
mod table_encode;
mod tar_header;
#[cfg(test)]
mod tests;
mod toc;
mod writer;

pub use features::{BlobFeatures, UnsupportedFeatures};
pub use info::{BlobInfo, BlobOptions, ChunkInfoRange, TocRange};
pub use table::{ChunkTable, ChunkTableError, TableLimits};
pub use toc::{TOC_TAIL_BYTES, Toc, TocEntry, TocError, TocLimits};
pub use writer::{BlobTail, BlobWriteError, BlobWriter};
