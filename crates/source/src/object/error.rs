//! What can go wrong with an object store and nowhere else.

use crate::error::{Class, SourceError};

/// Why an object store can't be used, where there is no answer of its own that says it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// Plain HTTP to a host that it was not allowed for.
    #[error(
        "plain HTTP is not allowed for {host}: use https, or allow it with --plain-http {host}"
    )]
    PlainHttp {
        /// `host` or `host:port`.
        host: String,
    },
    /// It is not known in which region the bucket is.
    #[error("no region is known: add ?region=REGION to the location, or set AWS_REGION")]
    NoRegion,
    /// Credentials were found, and no request can be signed with them.
    #[error("no request can be signed with the credentials that were found: {why}")]
    Sign {
        /// Why not; nothing of the credentials.
        why: &'static str,
    },
    /// The answer was no, and nobody was named who asks.
    #[error("no credentials were found, and anonymous requests are refused: {hint}")]
    NoCredentials {
        /// Where they would have been found.
        hint: &'static str,
        /// What the service said.
        source: Box<SourceError>,
    },
    /// Credentials that are of no use.
    #[error("the credentials were not taken")]
    Rejected(#[source] Box<SourceError>),
    /// Blobs are named by their SHA-256.
    #[error("only blobs with a SHA-256 digest have an object")]
    Algorithm,
    /// An answer that makes no sense.
    #[error("the answer makes no sense: {what}")]
    Answer {
        /// What is wrong with it.
        what: &'static str,
    },
    /// An upload ended with an object of another size.
    #[error("after it was sent, the object has {got} bytes instead of {expected}")]
    Stored {
        /// By its descriptor.
        expected: u64,
        /// What is there; 0 if nothing is.
        got: u64,
    },
    /// The library that makes the requests refused.
    #[error("the request could not be made ({kind})")]
    Library {
        /// What it says.
        kind: &'static str,
    },
}

impl ObjectError {
    /// What it means.
    fn class(&self) -> Class {
        match self {
            Self::PlainHttp { .. }
            | Self::NoRegion
            | Self::Algorithm
            | Self::Answer { .. }
            | Self::Library { .. } => Class::Refused,
            Self::Sign { .. } | Self::NoCredentials { .. } | Self::Rejected(_) => Class::Denied,
            Self::Stored { .. } => Class::Corrupt,
        }
    }

    /// As an error of something done at a place.
    pub(super) fn at(self, what: impl Into<String>) -> SourceError {
        SourceError::Backend {
            what: what.into(),
            class: self.class(),
            source: Box::new(self),
        }
    }
}
