//! What is written to a repository.

use std::io::{self, Read as _};
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;
use draught_digest::Hasher;
use draught_oci::Descriptor;

use crate::error::SourceError;
use crate::http::Body;

/// Bytes copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// A blob to be written. It can be read as often as an upload needs to be tried.
#[derive(Debug, Clone)]
pub enum Payload {
    /// In memory: configurations and other small things.
    Bytes(Bytes),
    /// A whole file.
    File(PathBuf),
    /// The same, of a file without a name that this process alone can write, and that it has digested while it
    /// wrote it: the path is that of its descriptor. It need not be digested again, and can be given a name.
    Spooled(PathBuf),
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
            Self::File(path) | Self::Spooled(path) => {
                Ok(fs_err::tokio::metadata(path).await?.len())
            }
        }
    }

    /// Reads it on a thread that may block.
    pub(crate) fn open(&self) -> Result<Box<dyn io::Read + '_>, SourceError> {
        Ok(match self {
            Self::Bytes(bytes) => Box::new(bytes.as_ref()),
            Self::File(path) | Self::Spooled(path) => Box::new(fs_err::File::open(path)?),
        })
    }

    /// The same, on its own.
    pub(crate) fn into_read(self) -> Result<Box<dyn io::Read + Send>, SourceError> {
        Ok(match self {
            Self::Bytes(bytes) => Box::new(io::Cursor::new(bytes)),
            Self::File(path) | Self::Spooled(path) => Box::new(fs_err::File::open(path)?),
        })
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
            Self::File(path) | Self::Spooled(path) => Body::File {
                path: path.clone(),
                offset: range.start,
                bytes,
            },
        }
    }
}

/// Copies a blob, and verifies it on the way: what was written is the blob only if there is no error.
pub(crate) fn copy_verified(
    descriptor: &Descriptor,
    from: &mut dyn io::Read,
    out: &mut dyn io::Write,
) -> Result<(), SourceError> {
    let mut hasher = Hasher::new(descriptor.digest.algorithm());
    let mut bytes: u64 = 0;
    let mut buffer = vec![0; COPY_BYTES];
    // One more than there should be tells that there is too much.
    let mut from = from.take(descriptor.size.saturating_add(1));
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else {
            break;
        };
        bytes = bytes.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        if bytes > descriptor.size {
            break;
        }
        hasher.update(piece);
        out.write_all(piece)?;
    }
    if bytes != descriptor.size {
        return Err(SourceError::Size {
            digest: descriptor.digest,
            expected: descriptor.size,
            got: bytes,
        });
    }
    let got = hasher.finish();
    if got != descriptor.digest {
        return Err(SourceError::Mismatch {
            digest: descriptor.digest,
            got,
            bytes,
        });
    }
    Ok(())
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}
