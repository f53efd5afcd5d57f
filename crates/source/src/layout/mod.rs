//! OCI layouts: a directory with an index and blobs (OCI image specification v1.1, "Image Layout").

mod reader;
mod writer;

pub use reader::Layout;
pub(crate) use writer::replace_with;
