//! Bodies: files going out, requests coming in, neither ever whole in memory.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::error::{ApiError, Code};

/// Bytes read from a file at a time: few system calls, and still small beside a connection.
const READ_BYTES: usize = 512 << 10;

/// Bytes taken for nothing before an error is answered; who sends more finds the connection closed.
const DRAIN_BYTES_MAX: usize = 64 << 20;

/// The part `range` of `file` as a body.
///
/// The next piece is read from the disk while the last one goes to the network.
pub(super) fn of_file(file: fs_err::File, range: Range<u64>, closing: CancellationToken) -> Body {
    let mut reader = Reader {
        file: Arc::new(file.into_file()),
        range,
        ahead: None,
    };
    reader.ahead = reader.start();
    let pieces = stream::unfold(reader, move |mut reader| {
        let closing = closing.clone();
        async move {
            let ahead = reader.ahead.take()?;
            let piece = tokio::select! {
                piece = ahead => piece.map_err(io::Error::other).flatten(),
                () = closing.cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
            };
            // After an error the body ends short of its length, which the client notices.
            reader.ahead = piece.as_ref().ok().and_then(|_| reader.start());
            Some((piece, reader))
        }
    });
    Body::from_stream(pieces)
}

struct Reader {
    file: Arc<std::fs::File>,
    range: Range<u64>,
    ahead: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Reader {
    /// Begins to read the next piece, if there is one.
    fn start(&mut self) -> Option<JoinHandle<io::Result<Bytes>>> {
        let left = self.range.end.saturating_sub(self.range.start);
        let bytes = usize::try_from(left).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        if bytes == 0 {
            return None;
        }
        let at = self.range.start;
        self.range.start += u64::try_from(bytes).unwrap_or(left);
        let file = Arc::clone(&self.file);
        Some(tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; bytes];
            file.read_exact_at(&mut piece, at)?;
            Ok(Bytes::from(piece))
        }))
    }
}

/// A request's body, read with patience but not for ever.
pub(super) struct Incoming {
    stream: BodyDataStream,
    stall: Duration,
}

impl Incoming {
    pub(super) fn new(body: Body, stall: Duration) -> Self {
        Self {
            stream: body.into_data_stream(),
            stall,
        }
    }

    /// The next bytes, as many as the network had; nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        match tokio::time::timeout(self.stall, self.stream.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
            Ok(Some(Err(error))) => Err(ApiError::bad_request(
                Code::SizeInvalid,
                format!("the request's body ended early: {error}"),
            )),
            Err(_) => Err(ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                Code::Unknown,
                format!("no byte of the request's body came for {:?}", self.stall),
            )),
        }
    }

    /// Takes the rest of it and forgets it: a client that sends all before it listens would see its
    /// connection break and not learn why.
    pub(super) async fn drain(&mut self) {
        let mut left = DRAIN_BYTES_MAX;
        while let Ok(Some(bytes)) = self.next().await {
            match left.checked_sub(bytes.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }

    /// All of it, if it is at most so many bytes.
    pub(super) async fn collect(mut self, bytes_max: usize) -> Result<Vec<u8>, ApiError> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            if bytes.len() > bytes_max - all.len() {
                return Err(ApiError::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    Code::SizeInvalid,
                    format!("a manifest may have {bytes_max} bytes at most"),
                ));
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }
}

/// Runs what blocks on the disk where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let result = tokio::task::spawn_blocking(work).await;
    result.map_err(|error| ApiError::from(io::Error::other(error)))
}
