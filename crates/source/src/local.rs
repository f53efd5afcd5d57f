//! Blobs in local files, read from threads that may block.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use draught_digest::Digest;
use draught_oci::Descriptor;
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

/// A part of an open file that is a blob. The open file keeps the bytes even if the name goes.
#[derive(Debug, Clone)]
pub(crate) struct LocalBlob {
    pub(crate) file: Arc<std::fs::File>,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl LocalBlob {
    /// Reads a range, which must lie within.
    pub(crate) fn read(&self, digest: &Digest, range: &Range<u64>) -> Result<Bytes, SourceError> {
        let length = crate::registry::check_range(digest, range)?;
        let outside = || SourceError::RangeOutside {
            digest: *digest,
            range: range.clone(),
        };
        let start = self.offset.checked_add(range.start).ok_or_else(outside)?;
        if range.end > self.bytes {
            return Err(outside());
        }
        let mut buffer = vec![0; length];
        match self.file.read_exact_at(&mut buffer, start) {
            Ok(()) => Ok(buffer.into()),
            // It was longer when it was opened.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(outside()),
            Err(source) => Err(SourceError::Io { source }),
        }
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
