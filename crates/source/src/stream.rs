//! A blob as a stream of pieces that can be trusted once the last one is there.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use draught_digest::{Digest, Hasher};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};

use crate::error::SourceError;

/// A blob's bytes, in pieces. Every piece is hostile until the stream has ended without an error: digest
/// and size are checked before the last piece is given out, so who has `size` bytes has the right ones.
pub struct BlobStream {
    pieces: BoxStream<'static, Result<Bytes, SourceError>>,
    digest: Digest,
    size: u64,
    seen: u64,
    /// `None` when somebody else verifies.
    hasher: Option<Hasher>,
    is_concluded: bool,
    /// Told when the bytes are not the blob's.
    on_mismatch: Option<Box<dyn FnOnce() + Send>>,
}

impl BlobStream {
    /// Wraps pieces of a blob with this digest and size.
    #[must_use]
    pub fn new(
        digest: Digest,
        size: u64,
        pieces: BoxStream<'static, Result<Bytes, SourceError>>,
    ) -> Self {
        Self {
            pieces,
            digest,
            size,
            seen: 0,
            hasher: Some(Hasher::new(digest.algorithm())),
            is_concluded: false,
            on_mismatch: None,
        }
    }

    /// The same stream, which tells when its bytes turn out not to be the blob's.
    pub(crate) fn on_mismatch(mut self, tell: impl FnOnce() + Send + 'static) -> Self {
        self.on_mismatch = Some(Box::new(tell));
        self
    }

    /// The same stream for who checks the digest itself: it is not done a second time. The size still is.
    #[must_use]
    pub fn unverified(mut self) -> Self {
        self.hasher = None;
        self
    }

    /// What the bytes must have.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How many there must be.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// All bytes, for blobs that fit into memory.
    ///
    /// # Errors
    /// [`SourceError::TooLong`] when the blob is over the limit, and those of the source.
    pub async fn into_bytes(mut self, limit_bytes: usize) -> Result<Bytes, SourceError> {
        let capacity = match usize::try_from(self.size) {
            Ok(size) if size <= limit_bytes => size,
            _ => {
                return Err(SourceError::TooLong {
                    what: format!("blob {}", self.digest),
                    limit_bytes: u64::try_from(limit_bytes).unwrap_or(u64::MAX),
                });
            }
        };
        let mut all = BytesMut::with_capacity(capacity);
        while let Some(piece) = self.next().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all.freeze())
    }

    /// Takes a piece into account; at the end, checks the whole.
    fn account(&mut self, piece: &Bytes) -> Result<(), SourceError> {
        self.seen = self
            .seen
            .saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        if let Some(hasher) = &mut self.hasher {
            hasher.update(piece);
        }
        if self.seen < self.size {
            return Ok(());
        }
        self.conclude()
    }

    /// Checks the whole, once.
    fn conclude(&mut self) -> Result<(), SourceError> {
        if std::mem::replace(&mut self.is_concluded, true) {
            return Ok(());
        }
        if self.seen != self.size {
            return Err(SourceError::Size {
                digest: self.digest,
                expected: self.size,
                got: self.seen,
            });
        }
        let got = match self.hasher.take() {
            Some(hasher) => hasher.finish(),
            None => return Ok(()),
        };
        if got != self.digest {
            if let Some(tell) = self.on_mismatch.take() {
                tell();
            }
            return Err(SourceError::Mismatch {
                digest: self.digest,
                got,
                bytes: self.seen,
            });
        }
        Ok(())
    }
}

impl Stream for BlobStream {
    type Item = Result<Bytes, SourceError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.pieces.poll_next_unpin(context) {
            Poll::Ready(Some(Ok(piece))) => match self.account(&piece) {
                Ok(()) => Poll::Ready(Some(Ok(piece))),
                Err(error) => self.fail(error),
            },
            Poll::Ready(Some(Err(error))) => self.fail(error),
            Poll::Ready(None) => match self.conclude() {
                Ok(()) => Poll::Ready(None),
                Err(error) => self.fail(error),
            },
            Poll::Pending => Poll::Pending,
        }
    }
}

impl BlobStream {
    /// An error is the last thing that comes.
    fn fail(
        mut self: Pin<&mut Self>,
        error: SourceError,
    ) -> Poll<Option<Result<Bytes, SourceError>>> {
        self.hasher = None;
        self.pieces = futures_util::stream::empty().boxed();
        Poll::Ready(Some(Err(error)))
    }
}

impl std::fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobStream")
            .field("digest", &self.digest)
            .field("size", &self.size)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;
    use crate::error::Class;

    fn blob(content: &'static [u8], digest: &[u8], size: u64) -> BlobStream {
        let pieces: Vec<_> = content
            .chunks(3)
            .map(|piece| Ok(Bytes::from_static(piece)))
            .collect();
        BlobStream::new(Digest::sha256(digest), size, stream::iter(pieces).boxed())
    }

    #[tokio::test]
    async fn right_bytes_come_whole() {
        let bytes = blob(b"draught", b"draught", 7).into_bytes(7).await.unwrap();
        assert_eq!(bytes, "draught");
        assert_eq!(blob(b"", b"", 0).into_bytes(0).await.unwrap(), "");
    }

    #[tokio::test]
    async fn the_last_piece_of_a_wrong_blob_is_never_seen() {
        for (content, size) in [
            (b"draughT".as_slice(), 7),
            (b"draught!".as_slice(), 7),
            (b"draugh".as_slice(), 7),
            (b"draught".as_slice(), 8),
        ] {
            let mut stream = blob(content, b"draught", size);
            let mut seen = 0;
            let error = loop {
                match stream.next().await.unwrap() {
                    Ok(piece) => seen += piece.len(),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.class(), Class::Corrupt, "{error}");
            assert!(
                u64::try_from(seen).unwrap() < size,
                "{seen} of {size} bytes were given"
            );
            assert!(stream.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn blobs_over_the_limit_are_not_collected() {
        let error = blob(b"draught", b"draught", 7)
            .into_bytes(6)
            .await
            .unwrap_err();
        assert!(matches!(error, SourceError::TooLong { .. }), "{error}");
    }
}
