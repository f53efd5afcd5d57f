//! Blobs without manifests: in a bucket of S3 or OSS, or in a directory.
//!
//! ```text
//! location  where, as people write it
//! store     the seam: one of a bucket or a directory
//! directory blobs as files
//! bucket    blobs as objects: reading, asking, small writes (OpenDAL makes these requests)
//! upload    large writes, in parts that a later try goes on with
//! parts     the requests of an upload in parts
//! wire      every request to a bucket: signed, sent, its error understood
//! sign      signatures and where credentials come from
//! ```

mod bucket;
mod credentials;
mod directory;
mod error;
mod location;
mod parts;
mod sign;
mod store;
mod transport;
mod upload;
mod wire;

pub use credentials::ObjectCredentials;
pub use error::ObjectError;
pub use location::{BackendLocation, BackendLocationError};
pub use store::ObjectStore;
pub use upload::{PART_BYTES, PARTS_AT_ONCE};
