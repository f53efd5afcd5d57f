//! Blobs in local files, read from threads that may block.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use draught_digest::Digest;
use draught_oci::{Descriptor, Limits};
use futures_util::StreamExt as _;
use futures_util::stream::try_unfold;

use crate::error::SourceError;
use crate::stream::BlobStream;

/// Bytes read at a time: large enough that handing over to a thread does not count, small enough that a
/// queue of pieces is.
const READ_BYTES: u64 = 256 << 10;

/// Runs what blocks where it may.
pub(crate) async fn run<T: Send + 'static>(
    operation: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    tokio::task::spawn_blocking(operation)
        .await
        .map_err(|_| SourceError::Cancelled)?
}

/// Where the bytes of a blob are. An open file keeps them even if its name goes.
#[derive(Debug, Clone)]
enum Backing {
    File {
        file: Arc<std::fs::File>,
        offset: u64,
    },
    Memory(Bytes),
}

/// A blob in an open file, or a small one in memory.
#[derive(Debug, Clone)]
pub(crate) struct LocalBlob {
    backing: Backing,
    pub(crate) bytes: u64,
}

impl LocalBlob {
    /// A part of an open file.
    pub(crate) fn of_file(file: Arc<std::fs::File>, offset: u64, bytes: u64) -> Self {
        let backing = Backing::File { file, offset };
        Self { backing, bytes }
    }

    /// A document that was made here.
    pub(crate) fn of_bytes(content: Bytes) -> Self {
        Self {
            bytes: u64::try_from(content.len()).unwrap_or(u64::MAX),
            backing: Backing::Memory(content),
        }
    }

    /// Reads a range, which must lie within.
    pub(crate) fn read(&self, digest: &Digest, range: &Range<u64>) -> Result<Bytes, SourceError> {
        let length = crate::registry::check_range(digest, range)?;
        let outside = || SourceError::RangeOutside {
            digest: *digest,
            range: range.clone(),
        };
        if range.end > self.bytes {
            return Err(outside());
        }
        let (file, offset) = match &self.backing {
            Backing::File { file, offset } => (file, *offset),
            Backing::Memory(content) => {
                let start = usize::try_from(range.start).unwrap_or(usize::MAX);
                let end = start.checked_add(length).ok_or_else(outside)?;
                return Ok(content.slice(start..end));
            }
        };
        let start = offset.checked_add(range.start).ok_or_else(outside)?;
        let mut buffer = vec![0; length];
        match file.read_exact_at(&mut buffer, start) {
            Ok(()) => Ok(buffer.into()),
            // It was longer when it was opened.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(outside()),
            Err(source) => Err(SourceError::Io { source }),
        }
    }

    /// All of a document, not verified.
    pub(crate) fn document(
        &self,
        digest: &Digest,
        what: impl FnOnce() -> String,
    ) -> Result<Vec<u8>, SourceError> {
        let limits = Limits::default();
        let limit_bytes = u64::try_from(limits.document_bytes_max).unwrap_or(u64::MAX);
        if self.bytes > limit_bytes {
            let what = what();
            return Err(SourceError::TooLong { what, limit_bytes });
        }
        Ok(self.read(digest, &(0..self.bytes))?.to_vec())
    }

    /// The blob as a verified stream.
    pub(crate) fn stream(self, descriptor: &Descriptor) -> Result<BlobStream, SourceError> {
        let (digest, size) = (descriptor.digest, descriptor.size);
        if self.bytes != size {
            return Err(SourceError::Size {
                digest,
                expected: size,
                got: self.bytes,
            });
        }
        let pieces = try_unfold(0, move |position| {
            let blob = self.clone();
            async move {
                if position >= size {
                    return Ok(None);
                }
                let end = size.min(position.saturating_add(READ_BYTES));
                let piece = run(move || blob.read(&digest, &(position..end))).await?;
                Ok(Some((piece, end)))
            }
        });
        Ok(BlobStream::new(digest, size, pieces.boxed()))
    }
}
