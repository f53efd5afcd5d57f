//! The directory: what lies where, and how it gets there without half-written files.

mod blobs;
mod durable;
mod layout;
mod manifests;
mod uploads;

pub use layout::OpenError;
pub(crate) use layout::Storage;
pub(crate) use manifests::{TagGuard, TagOutcome};
pub(crate) use uploads::{StartError, Upload, Uploads};
