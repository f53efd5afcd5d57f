//! What can go wrong, and what a client is told.

use std::io;
use std::path::PathBuf;

use draught_containerd::tonic::{Code, Status};

/// A result of this crate.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why something can't be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database can't be used.
    #[error("failed to open the snapshots' database {path:?}")]
    Database {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// The database is another version's.
    #[error("the snapshots' database {path:?} has format {format}, this version knows {expected}")]
    Format {
        /// Its file.
        path: PathBuf,
        /// What it has.
        format: u64,
        /// What was expected.
        expected: u64,
    },
    /// A record in the database can't be read.
    #[error("the record of snapshot {name:?} in {path:?} can't be read")]
    Record {
        /// The database's file.
        path: PathBuf,
        /// The snapshot.
        name: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A change could not be written.
    #[error("failed to write to the snapshots' database")]
    Write {
        /// Why.
        source: Box<redb::Error>,
    },
    /// A file or directory failed.
    #[error("failed to {what}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no such snapshot.
    #[error("snapshot {name:?} does not exist")]
    NoSnapshot {
        /// What was asked for.
        name: String,
    },
    /// The name is taken.
    #[error("snapshot {name:?} already exists")]
    Exists {
        /// The name.
        name: String,
    },
    /// It is there, and lazy: who asked need not pull it.
    #[error("target snapshot {name:?} already exists")]
    Ready {
        /// The name that was asked for.
        name: String,
    },
    /// A snapshot is not what it has to be for this.
    #[error("snapshot {name:?} {problem}")]
    State {
        /// The snapshot.
        name: String,
        /// What is the matter.
        problem: &'static str,
    },
    /// The request makes no sense.
    #[error("{problem}")]
    Request {
        /// What is wrong with it.
        problem: String,
    },
    /// A lazy layer can't be had now.
    #[error("snapshot {name:?} can't be mounted now: {why}")]
    Unavailable {
        /// The snapshot.
        name: String,
        /// Why.
        why: String,
    },
}

impl Error {
    /// The error of a file operation.
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    fn code(&self) -> Code {
        match self {
            Self::NoSnapshot { .. } => Code::NotFound,
            Self::Exists { .. } | Self::Ready { .. } => Code::AlreadyExists,
            Self::State { .. } => Code::FailedPrecondition,
            Self::Request { .. } => Code::InvalidArgument,
            Self::Unavailable { .. } => Code::Unavailable,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Code::ResourceExhausted
            }
            Self::Write { source } if is_full(source) => Code::ResourceExhausted,
            Self::Database { .. }
            | Self::Format { .. }
            | Self::Record { .. }
            | Self::Write { .. }
            | Self::Io { .. } => Code::Internal,
        }
    }
}

/// Whether a disk is full.
fn is_full(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull)
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        Self::new(error.code(), text)
    }
}
