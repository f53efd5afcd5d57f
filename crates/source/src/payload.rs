//! What is written to a repository.

use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;

use crate::error::SourceError;
use crate::http::Body;

/// A blob to be written. It can be read as often as an upload needs to be tried.
#[derive(Debug, Clone)]
pub enum Payload {
    /// In memory: configurations and other small things.
    Bytes(Bytes),
    /// A whole file.
    File(PathBuf),
}

/// How a blob came to be where it was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// From another repository, without moving a byte.
    Mounted {
        /// Which.
        from: String,
    },
    /// It was sent.
    Written,
}

impl Payload {
    /// Its length.
    pub(crate) async fn len(&self) -> Result<u64, SourceError> {
        match self {
            Self::Bytes(bytes) => Ok(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            Self::File(path) => Ok(fs_err::tokio::metadata(path).await?.len()),
        }
    }

    /// A part of it; `range` lies within.
    pub(crate) fn part(&self, range: Range<u64>) -> Body {
        let bytes = range.end.saturating_sub(range.start);
        match self {
            _ if bytes == 0 => Body::Empty,
            Self::Bytes(all) => {
                let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(all.len());
                Body::Bytes(all.slice(at(range.start)..at(range.end)))
            }
            Self::File(path) => Body::File {
                path: path.clone(),
                offset: range.start,
                bytes,
            },
        }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}
