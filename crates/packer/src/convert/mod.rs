//! Whole images, from one place to another.
//!
//! Blobs are written first, then configuration and manifest, and the tag last of all: whatever ends a
//! conversion, no tag ever stands for half an image. What the destination has already is not sent again.

mod cached;
mod directory;
mod documents;
mod error;
mod image;
mod index;
mod options;
mod push;
mod run;

pub(crate) use documents::blob_descriptor;
pub use error::ConvertError;
pub use options::{ConvertOptions, Converted, ConvertedImage, PlatformChoice};
pub use run::convert;
