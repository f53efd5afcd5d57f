//! This crate is where blobs come from and go to: registries, OCI layouts, docker archives, object stores;
//! with credentials and retries.
//!
//! A [`Client`] holds what all share: connections, tokens, [`Settings`]. It opens a [`draught_oci::Location`]
//! as a [`Repository`], the one seam over a repository of a registry, an OCI layout and a docker archive.
//! [`Source`] is the part of it that lazy reading needs, [`BlobBackend`] what writing blobs needs. An [`ObjectStore`]
//! is a place for blobs alone: a bucket, or a directory.
//!
//! What is decided here:
//! * **Nothing unverified looks verified.** Manifests and documents are checked before they are parsed. A
//!   [`BlobStream`] checks digest and size before it gives out the last piece; until then its bytes are
//!   hostile. [`Source::read_range`] can't check and says so: only the caller knows the chunks.
//! * **Errors have a class** ([`SourceError::class`]): corrupt, unavailable (with the time that the server
//!   asks for), denied, not found, refused. Operations on whole objects are tried again in here, with
//!   growing pauses; a download goes on where it broke. A ranged read is tried once: the planner of fills
//!   knows better when and where to try again.
//! * **Credentials stay where they belong.** They are sent to their registry and to the token server that it
//!   names, over TLS (or to loopback and hosts that the user listed), and dropped at the first redirect to
//!   another host. They live in [`Secret`]s and in headers marked as sensitive, and errors show no URL's query.
//! * **Nothing waits for ever.** Connecting and silence have time-outs, queues and answers have limits; all are
//!   constants beside [`Settings`]. Whole blobs and short requests to a host wait in different queues.
//!
//! Origin: OCI distribution specification v1.1; docker's "Token Authentication Specification"; RFC 9110
//! for ranges; the REST interfaces of Amazon S3 and Alibaba OSS; docker's and containers/image's formats of credential files.
#![forbid(unsafe_code)]

mod archive;
mod auth;
mod backend;
mod blobs;
mod blocking;
mod credentials;
mod duration;
mod error;
mod hosts;
mod http;
mod image;
mod layout;
mod listing;
mod local;
mod object;
mod payload;
mod registry;
mod repository;
mod retry;
mod secret;
mod settings;
mod stamp;
mod stream;

pub use archive::Archive;
pub use backend::BlobBackend;
pub use blobs::Blobs;
pub use blocking::BlobReader;
pub use credentials::{
    Credential, CredentialError, CredentialFiles, Credentials, Keychain, KeychainError, Plugins,
    PullSecrets,
};
pub use error::{Class, SourceError, TlsError};
pub use hosts::{
    Capability, ClientFiles, HostSettings, Hosts, HostsError, HostsFile, HostsFileError, Looked,
};
pub use layout::Layout;
pub use object::{
    BackendLocation, BackendLocationError, ObjectCredentials, ObjectError, ObjectStore, PART_BYTES,
    PARTS_AT_ONCE,
};
pub use payload::{Payload, Pushed};
pub use registry::{Client, RegistryRepository};
pub use repository::{Repository, Source};
pub use secret::Secret;
pub use settings::{
    ATTEMPTS, COMMIT_TIMEOUT, CONNECT_TIMEOUT, RANGE_BYTES_MAX, RATE_BYTES_PER_S_MIN,
    REQUESTS_PER_HOST, RETRY_DELAY, RETRY_DELAY_MAX, SKIP_BYTES_MAX, STALL_TIMEOUT,
    STREAMS_PER_HOST, Settings,
};
pub use stream::BlobStream;
