//! What is sent: bytes, or a part of a file, as often as needed.

use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use crate::error::SourceError;

/// Bytes read from a file at a time.
const READ_BYTES: usize = 256 << 10;

/// The body of a request. It can be sent more than once.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// None.
    Empty,
    /// These bytes.
    Bytes(Bytes),
    /// A part of a file.
    File {
        /// Which.
        path: PathBuf,
        /// Where it begins.
        offset: u64,
        /// How much of it.
        bytes: u64,
    },
}

/// Counts bytes as they leave, so that a slow upload can be told from a dead one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Bytes handed to the connection so far.
    pub(crate) fn sent(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bytes in memory, piece by piece.
fn pieces(mut bytes: Bytes, progress: &Progress) -> reqwest::Body {
    let sent = progress.0.clone();
    let pieces = std::iter::from_fn(move || {
        let piece = bytes.split_to(bytes.len().min(READ_BYTES));
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        sent.fetch_add(length, Ordering::Relaxed);
        (!piece.is_empty()).then_some(Ok::<_, std::convert::Infallible>(piece))
    });
    reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
}

impl Body {
    /// Its length.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Self::File { bytes, .. } => *bytes,
        }
    }

    /// Whether it is long enough that its bytes are counted as they leave.
    pub(crate) fn is_watched(&self) -> bool {
        match self {
            Self::Empty => false,
            Self::Bytes(bytes) => bytes.len() > READ_BYTES,
            Self::File { .. } => true,
        }
    }

    /// For one sending.
    pub(crate) async fn open(&self, progress: &Progress) -> Result<reqwest::Body, SourceError> {
        let (path, offset, bytes) = match self {
            Self::Empty => return Ok(reqwest::Body::from(Bytes::new())),
            Self::Bytes(bytes) if !self.is_watched() => {
                return Ok(reqwest::Body::from(bytes.clone()));
            }
            Self::Bytes(bytes) => return Ok(pieces(bytes.clone(), progress)),
            Self::File {
                path,
                offset,
                bytes,
            } => (path, *offset, *bytes),
        };
        let file = fs_err::tokio::File::open(path).await?;
        let mut file = file.into_parts().0;
        file.seek(SeekFrom::Start(offset)).await?;
        let sent = progress.0.clone();
        let stream =
            ReaderStream::with_capacity(file.take(bytes), READ_BYTES).inspect(move |piece| {
                if let Ok(piece) = piece {
                    let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
                    sent.fetch_add(length, Ordering::Relaxed);
                }
            });
        Ok(reqwest::Body::wrap_stream(stream))
    }
}
