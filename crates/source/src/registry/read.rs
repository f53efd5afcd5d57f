//! Whole blobs of a registry, as streams that survive a broken connection.

use std::sync::Arc;

use bytes::Bytes;
use draught_digest::Digest;
use draught_oci::Descriptor;
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, try_unfold};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, StatusCode};

use super::client::RegistryRepository;
use crate::error::SourceError;
use crate::hosts::{Capability, Route};
use crate::http::{Answer, Lane, Request};
use crate::retry::Backoff;
use crate::stream::BlobStream;

/// Bytes that a connection must bring before it breaks for the next to count as a new first try: a
/// download may break as often as it likes if it comes further.
const PROGRESS_BYTES: u64 = 1 << 20;

/// A download that goes on where it broke.
struct Download {
    repository: RegistryRepository,
    digest: Digest,
    size: u64,
    position: u64,
    /// Where the last connection broke.
    broke_at: u64,
    answer: Option<Answer>,
    /// Who gives it.
    route: Option<Arc<Route>>,
    pending: Option<Bytes>,
    backoff: Backoff,
}

impl RegistryRepository {
    /// A blob as a stream, verified at its end. A connection that breaks is made again, from where it broke.
    ///
    /// Nothing is asked of the registry before the stream is read.
    #[must_use]
    pub fn blob(&self, descriptor: &Descriptor) -> BlobStream {
        let pieces = Download::new(self, descriptor).pieces();
        let (repository, digest) = (self.clone(), descriptor.digest);
        BlobStream::new(descriptor.digest, descriptor.size, pieces)
            .on_mismatch(move || repository.distrust(&digest))
    }

    /// The rest of a blob, from a position on, for who has what comes before it. From its start it is the same as
    /// [`blob`](Self::blob); else only the size of the rest is checked: the digest is of the whole.
    #[must_use]
    pub fn blob_from(&self, descriptor: &Descriptor, position: u64) -> BlobStream {
        if position == 0 {
            return self.blob(descriptor);
        }
        let download = Download {
            position,
            broke_at: position,
            ..Download::new(self, descriptor)
        };
        let rest = descriptor.size.saturating_sub(position);
        BlobStream::new(descriptor.digest, rest, download.pieces()).unverified()
    }

    /// Whether a blob is there.
    ///
    /// # Errors
    /// Of every class but not found.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, SourceError> {
        Ok(self.has(self.blob_url(digest)?).await?.is_some())
    }

    /// Deletes a blob.
    ///
    /// # Errors
    /// Of every class; many registries refuse to delete.
    pub async fn delete_blob(&self, digest: &Digest) -> Result<(), SourceError> {
        self.delete(self.blob_url(digest)?).await
    }
}

impl Download {
    fn new(repository: &RegistryRepository, descriptor: &Descriptor) -> Self {
        Self {
            repository: repository.clone(),
            digest: descriptor.digest,
            size: descriptor.size,
            position: 0,
            broke_at: 0,
            answer: None,
            route: None,
            pending: None,
            backoff: Backoff::new(repository.settings()),
        }
    }

    fn pieces(self) -> BoxStream<'static, Result<Bytes, SourceError>> {
        let pieces = try_unfold(self, async |mut download| {
            let piece = download.piece().await?;
            Ok(piece.map(|piece| (piece, download)))
        });
        pieces.boxed()
    }

    /// The next piece; `None` after `size` bytes, whatever else the server has to say.
    async fn piece(&mut self) -> Result<Option<Bytes>, SourceError> {
        if self.position >= self.size {
            if let Some(answer) = self.answer.take() {
                answer.discard().await;
            }
            return Ok(None);
        }
        loop {
            match self.try_piece().await {
                Ok(piece) => return Ok(Some(piece)),
                Err(error) => {
                    if let Some(route) = self.route.take() {
                        self.repository.note(&route, Some(&self.digest), &error);
                    }
                    self.answer = None;
                    self.pending = None;
                    if self.position.saturating_sub(self.broke_at) >= PROGRESS_BYTES {
                        self.backoff = Backoff::new(self.repository.settings());
                    }
                    self.broke_at = self.position;
                    self.backoff.wait(error).await?;
                }
            }
        }
    }

    async fn try_piece(&mut self) -> Result<Bytes, SourceError> {
        let mut answer = match self.answer.take() {
            Some(answer) => answer,
            None => self.open().await?,
        };
        let piece = match self.pending.take() {
            Some(piece) => Some(piece),
            None => answer.chunk().await?,
        };
        let Some(mut piece) = piece else {
            return Err(SourceError::ShortBody {
                host: answer.host().to_owned(),
                expected: self.size,
                got: self.position,
            });
        };
        self.answer = Some(answer);
        let left = self.size.saturating_sub(self.position);
        piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        self.position = self
            .position
            .saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        Ok(piece)
    }

    /// Asks for the blob from where we are.
    async fn open(&mut self) -> Result<Answer, SourceError> {
        let (repository, digest) = (self.repository.clone(), self.digest);
        let this = &*self;
        let opened = repository.read_from_any(Capability::Pull, Some(&digest), async |route| {
            let answer = this.open_at(&route).await?;
            Ok((route, answer))
        });
        let (route, mut answer) = opened.await?;
        self.route = Some(route);
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            self.skip(&mut answer).await?;
        }
        Ok(answer)
    }

    async fn open_at(&self, route: &Arc<Route>) -> Result<Answer, SourceError> {
        let url = self
            .repository
            .url_at(route, &format!("blobs/{}", self.digest))?;
        let mut request = Request::new(Method::GET, url)
            .with_header(
                ACCEPT_ENCODING.as_str(),
                HeaderValue::from_static("identity"),
            )
            .in_lane(Lane::Stream)
            .to(route);
        if self.position > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.position))
                .map_err(|_| self.repository.senseless("range makes no header"))?;
            request = request.with_header(RANGE.as_str(), range);
        }
        let expected = [StatusCode::OK, StatusCode::PARTIAL_CONTENT];
        let answer = self
            .repository
            .expect(&request, &self.repository.pull(), &expected)
            .await?;
        let partial = answer.status() == StatusCode::PARTIAL_CONTENT;
        if partial {
            let told = answer.header(CONTENT_RANGE.as_str()).unwrap_or_default();
            let start = told
                .strip_prefix("bytes ")
                .and_then(|rest| rest.split_once('-'))
                .and_then(|(first, _)| first.trim().parse::<u64>().ok());
            if start != Some(self.position) {
                return Err(SourceError::ContentRange {
                    host: answer.host().to_owned(),
                    asked: self.position..self.size,
                    told: told.to_owned(),
                });
            }
        } else if let Some(got) = answer.content_length().filter(|got| *got != self.size) {
            return Err(SourceError::Size {
                digest: self.digest,
                expected: self.size,
                got,
            });
        }
        Ok(answer)
    }

    /// Reads again what came before the connection broke, from a server that ignores ranges.
    async fn skip(&mut self, answer: &mut Answer) -> Result<(), SourceError> {
        if self.position > crate::settings::SKIP_BYTES_MAX {
            return Err(SourceError::RangeIgnored {
                host: answer.host().to_owned(),
                digest: self.digest,
                start: self.position,
                skip_bytes_max: crate::settings::SKIP_BYTES_MAX,
            });
        }
        let mut left = self.position;
        while left > 0 {
            let short = SourceError::ShortBody {
                host: answer.host().to_owned(),
                expected: self.size,
                got: self.position.saturating_sub(left),
            };
            let mut piece = answer.chunk().await?.ok_or(short)?;
            let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
            if length > left {
                drop(piece.split_to(usize::try_from(left).unwrap_or(usize::MAX)));
                self.pending = Some(piece);
                return Ok(());
            }
            left -= length;
        }
        Ok(())
    }
}
