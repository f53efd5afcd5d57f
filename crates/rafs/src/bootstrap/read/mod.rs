//! From untrusted bytes to a tree.

mod chunks;
mod error;
mod reader;

pub use error::ReadError;
pub use reader::{Bootstrap, Limits, Need, Reader};
