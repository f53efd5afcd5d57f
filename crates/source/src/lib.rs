//! This crate is where blobs come from and go to: registries, OCI layouts, docker archives; with credentials and retries.
#![forbid(unsafe_code)]

mod auth;
mod credentials;
mod error;
mod http;
mod payload;
mod registry;
mod retry;
mod secret;
mod settings;
mod stream;

pub use credentials::{Credential, CredentialError, CredentialFiles};
pub use error::{Class, SourceError, TlsError};
pub use payload::{Payload, Pushed};
pub use registry::{Client, RegistryRepository};
pub use secret::Secret;
pub use settings::*;
pub use stream::BlobStream;
