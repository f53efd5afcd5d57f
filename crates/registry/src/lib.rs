//! This crate is the embedded registry: the OCI distribution API over a directory.
//!
//! Origin: the OCI distribution specification, v1.1
//! (<https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md>), with what docker's
//! older clients expect beside it. It has pulls with byte ranges, monolithic and chunked pushes,
//! mounts across repositories, tag lists, a catalog, referrers and deletion.
//!
//! It has no users and no TLS: bind it to loopback. Where the specification leaves a choice:
//!
//! * Digests are sha256. Any other algorithm is refused by name.
//! * A manifest is taken only when the blobs and manifests that it refers to are in its repository;
//!   its `subject` may be missing, and layers that lie elsewhere (`urls`, foreign) are not asked for.
//! * A mount that names no source repository takes the blob from any.
//! * Deleting a manifest deletes the tags that name it; deleting a tag leaves the manifest.
//! * `If-Match` and `If-None-Match: *` on the `PUT` of a tag make it a compare-and-swap.
//! * Several ranges in one request are answered with the whole blob, as HTTP allows.
//! * Uploads do not outlive the process; whatever was answered with 201 survives a power cut.
//!
//! # On disk
//!
//! ```text
//! format                               which layout this is
//! lock                                 held while a process serves the directory
//! uploads/ID                           an upload's bytes so far
//! blobs/sha256/AB/HEX                  a blob, once
//! repositories/NAME/_blobs/HEX         a hard link to it: the repository has this blob
//! repositories/NAME/_manifests/HEX     media type, newline, the manifest's bytes
//! repositories/NAME/_referrers/S/HEX   empty: manifest HEX has the subject S
//! repositories/NAME/_tags/TAG          a digest
//! ```
//! Nothing in a repository's name can begin with `_`, so these never meet a nested repository.
//! A blob whose only link is the one below `blobs` belongs to no repository and is removed.
#![forbid(unsafe_code)]

mod http;
mod manifest;
mod names;
mod storage;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use http::{Handle, serve};
pub use storage::OpenError;

/// What a registry accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Bytes in a blob, at most. Default: 256 GiB, more than any layer seen and less than a disk
    /// that a runaway upload should fill unnoticed.
    pub blob_bytes_max: u64,
    /// Bytes in a manifest, at most. Default: 4 MiB, what the specification asks registries to take.
    pub manifest_bytes_max: usize,
    /// Uploads under way at a time, at most: each holds a file open. Default: 1024.
    pub uploads_max: usize,
    /// How long an upload may rest before a new one may take its place. Default: one hour.
    pub upload_idle: Duration,
    /// How long a request's body may pause. Default: one minute.
    pub body_stall: Duration,
    /// Connections at a time, at most; more wait until they are accepted. Default: 1024, which with
    /// a file for each stays below what systems allow a process.
    pub connections_max: usize,
    /// How long a connection may rest, or a client not read what it asked for. Default: five
    /// minutes.
    pub connection_idle: Duration,
    /// How long requests under way may take to end when the server is shut down. Default: five
    /// seconds.
    pub shutdown_grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            blob_bytes_max: 256 << 30,
            manifest_bytes_max: 4 << 20,
            uploads_max: 1024,
            upload_idle: Duration::from_secs(60 * 60),
            body_stall: Duration::from_secs(60),
            connections_max: 1024,
            connection_idle: Duration::from_secs(5 * 60),
            shutdown_grace: Duration::from_secs(5),
        }
    }
}

/// A directory with repositories; cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    storage: Arc<storage::Storage>,
    uploads: Arc<storage::Uploads>,
    options: Arc<Options>,
}

impl Registry {
    /// Opens the registry in the directory `root`, which is made if it does not exist.
    ///
    /// # Errors
    ///
    /// If the directory holds something else, is served by another process, or can't be used.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(root, Options::default())
    }

    /// As [`open`](Self::open), with other limits.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(root: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let storage = Arc::new(storage::Storage::open(root.as_ref())?);
        let uploads = storage::Uploads::new(storage.uploads_dir(), &options);
        Ok(Self {
            storage,
            uploads: Arc::new(uploads),
            options: Arc::new(options),
        })
    }
}
