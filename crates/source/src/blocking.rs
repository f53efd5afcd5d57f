//! From streams to threads that block: how a converter reads a layer.

use std::io::{self, Read};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::error::SourceError;
use crate::stream::BlobStream;

/// Pieces that wait to be read, so that the network and the decoder work at the same time. A piece is what
/// one read of a socket or file gave, some 400 KiB at most: a reader holds 4 MiB at most.
const PIECES_MAX: usize = 8;

/// A blob as a [`Read`], fed by a task. Digest and size are verified before the last bytes come out: who has
/// read to the end without an error has the right bytes.
#[derive(Debug)]
pub struct BlobReader {
    pieces: mpsc::Receiver<Result<Bytes, SourceError>>,
    current: Bytes,
    bytes_left: u64,
    is_over: bool,
    task: AbortHandle,
}

impl BlobReader {
    /// Reads a stream on a runtime's behalf. The task ends with the stream, with the reader, or with the
    /// runtime.
    ///
    /// A reader that is not read keeps one of the [`crate::STREAMS_PER_HOST`] places: who makes more readers
    /// than that must be able to read any of them, or the last may wait for a place for ever.
    #[must_use]
    pub fn new(mut stream: BlobStream, runtime: &Handle) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let bytes_left = stream.size();
        let task = runtime.spawn(async move {
            while let Some(piece) = stream.next().await {
                // Nobody reads any more.
                if sender.send(piece).await.is_err() {
                    return;
                }
            }
        });
        Self {
            pieces,
            current: Bytes::new(),
            bytes_left,
            is_over: false,
            task: task.abort_handle(),
        }
    }
}

impl Drop for BlobReader {
    /// At once, even if the task waits for the network: it holds a place that others wait for.
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Read for BlobReader {
    /// Must not be called from within the runtime's own threads.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.is_over {
                return Ok(0);
            }
            match self.pieces.blocking_recv() {
                Some(Ok(piece)) => {
                    let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
                    self.bytes_left = self.bytes_left.saturating_sub(length);
                    self.current = piece;
                }
                Some(Err(error)) => {
                    self.is_over = true;
                    return Err(io::Error::other(error));
                }
                // The runtime went, and the task with it: this is not the blob's end.
                None if self.bytes_left > 0 => {
                    self.is_over = true;
                    return Err(io::Error::other(SourceError::Cancelled));
                }
                None => self.is_over = true,
            }
        }
        let length = self.current.len().min(buffer.len());
        let taken = self.current.split_to(length);
        if let Some(buffer) = buffer.get_mut(..length) {
            buffer.copy_from_slice(&taken);
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use draught_digest::Digest;
    use futures_util::stream;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap()
    }

    fn blob(content: &'static [u8], digest: Digest, size: u64) -> BlobStream {
        let pieces: Vec<_> = content
            .chunks(3)
            .map(|piece| Ok(Bytes::from_static(piece)))
            .collect();
        BlobStream::new(digest, size, stream::iter(pieces).boxed())
    }

    #[test]
    fn a_blob_is_read_to_its_end() {
        let runtime = runtime();
        let content = b"draught from the cask, in more pieces than wait at once";
        let size = u64::try_from(content.len()).unwrap();
        let stream = blob(content, Digest::sha256(content), size);
        let mut read = Vec::new();
        BlobReader::new(stream, runtime.handle())
            .read_to_end(&mut read)
            .unwrap();
        assert_eq!(read, content);
        let nothing = blob(b"", Digest::sha256(b""), 0);
        assert_eq!(
            BlobReader::new(nothing, runtime.handle())
                .read(&mut [0; 9])
                .unwrap(),
            0
        );
    }

    #[test]
    fn a_wrong_blob_is_an_error_and_never_an_end() {
        let runtime = runtime();
        for (content, size) in [(b"draught".as_slice(), 7), (b"drau", 7), (b"", 0)] {
            let stream = blob(content, Digest::sha256(b"other"), size);
            let mut reader = BlobReader::new(stream, runtime.handle());
            let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
            assert!(
                error.get_ref().is_some_and(|it| it.is::<SourceError>()),
                "{error}"
            );
        }
    }

    #[test]
    fn a_runtime_that_goes_is_an_error_and_not_an_end() {
        let runtime = runtime();
        let pieces = stream::iter([Ok(Bytes::from_static(b"dra"))]).chain(stream::pending());
        let stream = BlobStream::new(Digest::sha256(b"draught"), 7, pieces.boxed());
        let mut reader = BlobReader::new(stream, runtime.handle());
        assert_eq!(reader.read(&mut [0; 9]).unwrap(), 3);
        drop(runtime);
        reader.read(&mut [0; 9]).unwrap_err();
    }
}
