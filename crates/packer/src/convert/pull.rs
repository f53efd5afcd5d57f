//! From an asynchronous stream to a blocking reader.

use std::io::{self, Read};

use bytes::Bytes;
use draught_source::{BlobStream, SourceError};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Pieces that wait to be read: some hundred kilobytes, so that the network and the decoder work at the
/// same time.
const PIECES: usize = 16;

/// The longest piece that is handed on at once, in bytes: bounds what the queue holds.
const PIECE_BYTES_MAX: usize = 128 << 10;

enum Piece {
    Data(Bytes),
    Failed(SourceError),
    End,
}

/// Reads a blob on a thread that may block. The stream ends when this is dropped.
pub(super) struct BlockingReader {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
    pump: JoinHandle<()>,
}

impl BlockingReader {
    /// Begins to read. Must be called on a runtime.
    pub(super) fn new(stream: BlobStream) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES);
        Self {
            pieces,
            current: Bytes::new(),
            ended: false,
            pump: tokio::spawn(pump(stream, sender)),
        }
    }
}

async fn pump(mut stream: BlobStream, sender: mpsc::Sender<Piece>) {
    while let Some(piece) = stream.next().await {
        let mut piece = match piece {
            Ok(piece) => piece,
            Err(error) => {
                // If nobody reads any more, nobody wants to know.
                drop(sender.send(Piece::Failed(error)).await);
                return;
            }
        };
        while !piece.is_empty() {
            let part = piece.split_to(piece.len().min(PIECE_BYTES_MAX));
            if sender.send(Piece::Data(part)).await.is_err() {
                return;
            }
        }
    }
    drop(sender.send(Piece::End).await);
}

impl Drop for BlockingReader {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl Read for BlockingReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.ended || out.is_empty() {
                return Ok(0);
            }
            match self.pieces.blocking_recv() {
                Some(Piece::Data(piece)) => self.current = piece,
                Some(Piece::End) => self.ended = true,
                Some(Piece::Failed(error)) => return Err(io::Error::other(error)),
                None => {
                    let message = "the conversion was given up";
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, message));
                }
            }
        }
        let bytes = self.current.len().min(out.len());
        let part = self.current.split_to(bytes);
        if let Some(out) = out.get_mut(..bytes) {
            out.copy_from_slice(&part);
        }
        Ok(bytes)
    }
}
