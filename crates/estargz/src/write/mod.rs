//! Writing: an archive is cut into members, which threads compress, and its table of contents follows.
//!
//! ```text
//! archive ─► tar::Reader ─► Toc (names, what each entry says) ─► Cutter ─► jobs ─► workers ─► Output
//!                 └─────────► Spool ─► order ─► the same ──────────┘                (in order; offsets)
//! ```
//!
//! [`toc`] knows the entries and which of them are still there at the end, [`cutter`] where members begin,
//! [`output`] where they end up. With all three known, [`document`] is the table.

mod cutter;
mod document;
mod error;
mod headers;
mod jobs;
mod names;
mod options;
mod order;
mod output;
mod run;
mod spool;
mod tail;
mod toc;

pub use error::WriteError;
pub use options::{CHUNK_BYTES_MAX, LEVEL_DEFAULT, LEVEL_MAX, PACK_BYTES_MAX, WriteOptions};
pub use run::{Written, write};
