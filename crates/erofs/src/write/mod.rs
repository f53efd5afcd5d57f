//! From a tree to an image.

mod content;
mod dirent;
mod error;
mod image;
mod placement;
mod plan;
mod sink;
mod xattr;

pub use content::{ChunkIndex, ChunkList, Content, ContentError};
pub use error::WriteError;
pub use image::{Options, Summary, write};
pub use placement::{Device, Place, Placement};
pub use plan::Plan;
