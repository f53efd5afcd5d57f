//! From untrusted bytes to inodes and trees.

mod error;
mod image;
mod tree;
mod xattr;

pub use error::ReadError;
pub use image::{Dirent, Image, Inode, Layout};
pub use tree::{Limits, ReadContent, ReadTree, read_tree};

pub(crate) use image::slice;
