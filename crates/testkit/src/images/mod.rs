//! Images to test with, made here and kept: see [`torture`], [`minbase`], [`python`].
//!
//! What is made lies in `images/` of [`crate::need::cache_dir`], under a name that holds a digest of
//! its recipe, and appears there whole by a rename; two processes that want the same wait for each
//! other.

mod cache;
mod layout;
mod real;
mod tools;
mod torture;

pub use cache::cached;
pub use layout::{
    Layer, Packing, StoredLayer, layer_files, write_layout, write_layout_running,
    write_stored_layout,
};
pub use real::{base_tar, built, minbase, python};
pub use tools::{TOOLS, tools};
pub use torture::{torture, torture_layers};
