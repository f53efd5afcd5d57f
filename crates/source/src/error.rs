//! What can go wrong between us and a blob, and what to do about it.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use draught_digest::Digest;

use std::sync::Arc;

use crate::credentials::CredentialError;
use crate::hosts::HostsError;

/// What an error means for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The bytes there are not the ones that were asked for: asking again is of no use, another source may.
    Corrupt,
    /// Not now: worth another try, not before `retry_after` if the server named a time.
    Unavailable {
        /// What the server asked us to wait.
        retry_after: Option<Duration>,
    },
    /// We are not let in.
    Denied,
    /// It isn't there.
    NotFound,
    /// It can't be done this way, however often it is tried.
    Refused,
}

/// Why an operation on a repository failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// No connection, or it broke.
    #[error("connection to {host} failed")]
    Transport {
        /// `host` or `host:port`.
        host: String,
        /// Without the URL, which may hold a signature.
        source: reqwest::Error,
    },
    /// The connection stands and nothing comes.
    #[error("{host} was silent for {silent_ms} ms")]
    Stalled {
        /// `host` or `host:port`.
        host: String,
        /// How long we waited.
        silent_ms: u128,
    },
    /// Something comes, but by drops.
    #[error("{host} sends less than {rate_bytes_per_s_min} bytes per second")]
    TooSlow {
        /// `host` or `host:port`.
        host: String,
        /// What it should send at least.
        rate_bytes_per_s_min: u64,
    },
    /// An answer other than the one hoped for.
    #[error("{host} answered {status} to {request}{detail}")]
    Status {
        /// `host` or `host:port`.
        host: String,
        /// Method and path, without the query.
        request: String,
        /// The HTTP status.
        status: u16,
        /// What the registry said about it, after `": "`; may be empty.
        detail: String,
        /// What the server asked us to wait.
        retry_after: Option<Duration>,
    },
    /// The body ended early.
    #[error("{host} sent {got} of {expected} bytes")]
    ShortBody {
        /// `host` or `host:port`.
        host: String,
        /// Bytes announced or asked for.
        expected: u64,
        /// Bytes that came.
        got: u64,
    },
    /// A range was asked for, the whole blob came, and the range begins too far in.
    #[error(
        "{host} ignores ranges: it sent all of {digest} instead of bytes from {start}, and more than {skip_bytes_max} are not skipped"
    )]
    RangeIgnored {
        /// `host` or `host:port`.
        host: String,
        /// The blob.
        digest: Digest,
        /// First byte asked for.
        start: u64,
        /// Bytes that we would skip.
        skip_bytes_max: u64,
    },
    /// The answer is for another range.
    #[error("{host} answered with content range {told:?} when bytes {asked:?} were asked for")]
    ContentRange {
        /// `host` or `host:port`.
        host: String,
        /// What was asked for.
        asked: Range<u64>,
        /// The header, empty if there was none.
        told: String,
    },
    /// The range is not within the blob.
    #[error("blob {digest} has no bytes {range:?}")]
    RangeOutside {
        /// The blob.
        digest: Digest,
        /// What was asked for.
        range: Range<u64>,
    },
    /// More was asked for at once than one answer may hold.
    #[error("range of {bytes} bytes is over the limit of {limit_bytes}")]
    RangeTooLong {
        /// Bytes asked for.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The blob or manifest is another one.
    #[error("{digest} was asked for, and {bytes} bytes with digest {got} came")]
    Mismatch {
        /// What was asked for.
        digest: Digest,
        /// What came.
        got: Digest,
        /// How much came.
        bytes: u64,
    },
    /// The blob has another size.
    #[error("{digest} has {got} bytes, but its descriptor says {expected}")]
    Size {
        /// The blob.
        digest: Digest,
        /// By its descriptor.
        expected: u64,
        /// As found.
        got: u64,
    },
    /// A document is over its limit.
    #[error("{what} is over the limit of {limit_bytes} bytes")]
    TooLong {
        /// Which.
        what: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// A document makes no sense.
    #[error("{what} is not usable")]
    Document {
        /// Which.
        what: String,
        /// What is wrong with it.
        source: Box<draught_oci::ParseError>,
    },
    /// An answer makes no sense.
    #[error("{host} gave no sensible answer: {what}")]
    Protocol {
        /// `host` or `host:port`.
        host: String,
        /// What is wrong.
        what: &'static str,
    },
    /// No credentials, or wrong ones.
    #[error(
        "{host} wants credentials for {repository}: log in first (docker login or podman login {host})"
    )]
    NoCredentials {
        /// `host` or `host:port`.
        host: String,
        /// The repository.
        repository: String,
    },
    /// The credentials that we have were not taken.
    #[error("{host} did not take the credentials for {repository}")]
    CredentialsRejected {
        /// Who did not take them: the registry or its token server.
        host: String,
        /// The repository.
        repository: String,
    },
    /// Credentials could not be looked up.
    #[error("credentials for {host} could not be read")]
    Credentials {
        /// `host` or `host:port`.
        host: String,
        /// Why.
        source: CredentialError,
    },
    /// What is said of the registry's hosts can't be used.
    #[error("it is not known how to reach {registry}")]
    Hosts {
        /// The registry.
        registry: String,
        /// Why.
        source: Arc<HostsError>,
    },
    /// No host of the registry may be asked for that.
    #[error("no host of {registry} may be asked: none has the capability {capability:?}")]
    NoHost {
        /// The registry.
        registry: String,
        /// What a host would need, as `hosts.toml` has it.
        capability: &'static str,
    },
    /// A redirect, token server or upload that would leave TLS, or go nowhere.
    #[error("{host} points to {target:?}, which is not followed: {reason}")]
    Redirect {
        /// Who points there.
        host: String,
        /// Scheme and host of the target.
        target: String,
        /// Why not.
        reason: &'static str,
    },
    /// TLS could not be set up.
    #[error("TLS could not be set up")]
    Tls {
        /// Why.
        source: TlsError,
    },
    /// An image's index has nothing for this platform.
    #[error("{what} has no image for {platform}; it has: {available}")]
    Platform {
        /// The index.
        what: String,
        /// What was wanted.
        platform: Box<draught_oci::Platform>,
        /// What there is.
        available: String,
    },
    /// A tag or digest isn't there.
    #[error("{what} has no image {selector}; it has: {available}")]
    NoSuchImage {
        /// The layout or archive.
        what: String,
        /// What was wanted.
        selector: String,
        /// Its tags.
        available: String,
    },
    /// A blob isn't there.
    #[error("{what} has no blob {digest}")]
    NoSuchBlob {
        /// The layout or archive.
        what: String,
        /// What was wanted.
        digest: Digest,
    },
    /// The directory or file is none of its kind.
    #[error("{path} is not {expected}: {reason}")]
    Format {
        /// The directory or file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// Why it isn't.
        reason: String,
    },
    /// This kind of source can't do that.
    #[error("{what} is not supported for {kind}")]
    Unsupported {
        /// What.
        what: &'static str,
        /// For what.
        kind: &'static str,
    },
    /// A local file.
    #[error("local file operation failed")]
    Io {
        /// With the path in it.
        source: io::Error,
    },
    /// A place that is not one of ours, see [`BlobBackend`](crate::BlobBackend).
    #[error("{what} failed")]
    Backend {
        /// What was done, and where.
        what: String,
        /// What it means.
        class: Class,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A task of ours was cancelled: the program is ending.
    #[error("the program is shutting down")]
    Cancelled,
}

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// No certificate authority is known.
    #[error(
        "no certificate authorities found on this system: install ca-certificates, or name a file with them"
    )]
    NoRoots,
    /// A file of certificates is unreadable.
    #[error("certificate file {path} could not be read")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// A certificate in it is none.
    #[error("a certificate in {path} is malformed")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The directory of certificates is unreadable.
    #[error("certificates could not be listed")]
    Io(#[source] io::Error),
    /// The TLS library refused its own defaults.
    #[error("TLS library could not be set up")]
    Library(#[source] rustls::Error),
    /// The HTTP library refused its settings.
    #[error("HTTP client could not be set up")]
    Client(#[source] reqwest::Error),
}

impl SourceError {
    /// What it means for whoever asked.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Transport { .. }
            | Self::Stalled { .. }
            | Self::TooSlow { .. }
            | Self::ShortBody { .. }
            | Self::ContentRange { .. } => Class::Unavailable { retry_after: None },
            Self::Status {
                status,
                retry_after,
                ..
            } => class_of_status(*status, *retry_after),
            Self::Mismatch { .. }
            | Self::Size { .. }
            | Self::TooLong { .. }
            | Self::Document { .. }
            | Self::RangeOutside { .. } => Class::Corrupt,
            Self::NoCredentials { .. }
            | Self::CredentialsRejected { .. }
            | Self::Credentials { .. } => Class::Denied,
            Self::Platform { .. } | Self::NoSuchImage { .. } | Self::NoSuchBlob { .. } => {
                Class::NotFound
            }
            Self::Io { source } => class_of_io(source),
            Self::Backend { class, .. } => *class,
            // Files get repaired, and readers wait for that.
            Self::Hosts { .. } | Self::Cancelled => Class::Unavailable { retry_after: None },
            Self::RangeIgnored { .. }
            | Self::RangeTooLong { .. }
            | Self::NoHost { .. }
            | Self::Protocol { .. }
            | Self::Redirect { .. }
            | Self::Tls { .. }
            | Self::Format { .. }
            | Self::Unsupported { .. } => Class::Refused,
        }
    }

    /// Whether another try may help.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self.class(), Class::Unavailable { .. })
    }

    /// Whether it isn't there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.class() == Class::NotFound
    }

    /// A transport error that shows no URL.
    pub(crate) fn transport(host: &str, source: reqwest::Error) -> Self {
        Self::Transport {
            host: host.to_owned(),
            source: source.without_url(),
        }
    }
}

impl From<io::Error> for SourceError {
    fn from(source: io::Error) -> Self {
        Self::Io { source }
    }
}

/// What an HTTP status means.
fn class_of_status(status: u16, retry_after: Option<Duration>) -> Class {
    match status {
        401 | 403 => Class::Denied,
        404 | 410 => Class::NotFound,
        // Time-out, too early, too many requests; and whatever is wrong on the other side.
        408 | 425 | 429 | 500..=599 => Class::Unavailable { retry_after },
        _ => Class::Refused,
    }
}

/// What a local error means: a disk that fails is not asked again.
fn class_of_io(error: &io::Error) -> Class {
    match error.kind() {
        io::ErrorKind::NotFound => Class::NotFound,
        io::ErrorKind::PermissionDenied => Class::Denied,
        io::ErrorKind::UnexpectedEof => Class::Corrupt,
        _ => Class::Refused,
    }
}
