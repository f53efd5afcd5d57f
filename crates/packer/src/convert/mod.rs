//! Whole images, from one place to another.
//!
//! Blobs are written first, then configuration and manifest, and the tag last of all: whatever ends a
//! conversion, no tag ever stands for half an image. What the destination has already is not sent again.

mod conversion;
mod dictionaries;
mod documents;
mod error;
mod image;
mod index;
mod marks;
mod options;
mod run;
mod single;

pub use error::ConvertError;
pub use options::{ConvertOptions, Converted, ConvertedImage, PlatformChoice, Publish};
pub use run::convert;
