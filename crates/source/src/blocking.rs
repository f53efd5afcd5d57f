//! From streams to threads that block: how a converter reads a layer.

use std::io::{self, Read};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::error::SourceError;
use crate::stream::BlobStream;

/// Pieces that wait to be read. A piece is what one read of a socket gave (some 16 to 400 KiB), or 1 MiB
/// of a local file; beyond, the network waits.
const PIECES_MAX: usize = 8;

/// A blob as a [`Read`], fed by a task. Digest and size are verified before the last bytes come out: who has
/// read to the end without an error has the right bytes.
#[derive(Debug)]
pub struct BlobReader {
    pieces: mpsc::Receiver<Result<Bytes, SourceError>>,
    current: Bytes,
    bytes_left: u64,
    is_over: bool,
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
        drop(runtime.spawn(async move {
            while let Some(piece) = stream.next().await {
                // Nobody reads any more.
                if sender.send(piece).await.is_err() {
                    return;
                }
            }
        }));
        Self {
            pieces,
            current: Bytes::new(),
            bytes_left,
            is_over: false,
        }
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
