//! Ranged reads of a registry's blobs: one try each.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use draught_digest::Digest;
use parking_lot::Mutex;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, StatusCode, Url};

use super::client::RegistryRepository;
use crate::error::SourceError;
use crate::hosts::{Capability, Route};
use crate::http::{Answer, Request};
use crate::settings::{RANGE_BYTES_MAX, SKIP_BYTES_MAX};

/// How long a blob's redirect is used again: signed URLs live for minutes, and who may read is asked anew.
const MOVED_KEPT: Duration = Duration::from_secs(60);

/// Blobs whose redirects are kept.
const MOVED_MAX: usize = 4096;

/// Where blobs were redirected to. Asking the registry each time would double every fault's latency.
#[derive(Debug, Default)]
pub(super) struct Moved(Mutex<BTreeMap<Digest, (Url, Instant)>>);

impl Moved {
    fn find(&self, digest: &Digest) -> Option<Url> {
        let all = self.0.lock();
        let (url, since) = all.get(digest)?;
        (since.elapsed() < MOVED_KEPT).then(|| url.clone())
    }

    fn keep(&self, digest: Digest, url: Url) {
        let mut all = self.0.lock();
        if all.len() >= MOVED_MAX {
            all.retain(|_, (_, since)| since.elapsed() < MOVED_KEPT);
        }
        if all.len() < MOVED_MAX {
            all.insert(digest, (url, Instant::now()));
        }
    }

    pub(super) fn forget(&self, digest: &Digest) {
        self.0.lock().remove(digest);
    }
}

impl RegistryRepository {
    /// Reads a range of a blob: all of it or an error. One try, apart from logging in again: the caller knows
    /// better when and where to try again. The bytes are not verified: only the caller knows their chunks.
    ///
    /// # Errors
    /// Of every class.
    pub async fn read_range(
        &self,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<Bytes, SourceError> {
        let length = check(digest, &range)?;
        if length == 0 {
            return Ok(Bytes::new());
        }
        if let Some(url) = self.moved().find(digest) {
            let request = ranged(url, &range)?;
            // What goes wrong over there may be an ended signature: the registry knows the way.
            if let Ok(sent) = self.authority().send(&request, None).await
                && [StatusCode::PARTIAL_CONTENT, StatusCode::OK].contains(&sent.answer.status())
            {
                return read(sent.answer, digest, &range, length).await;
            }
            self.moved().forget(digest);
        }
        self.read_from_any(Capability::Pull, Some(digest), |route| {
            self.read_range_at(route, digest, range.clone(), length)
        })
        .await
    }

    async fn read_range_at(
        &self,
        route: Arc<Route>,
        digest: &Digest,
        range: Range<u64>,
        length: usize,
    ) -> Result<Bytes, SourceError> {
        let url = self.url_at(&route, &format!("blobs/{digest}"))?;
        let request = ranged(url, &range)?.to(&route);
        let sent = self.send(&request, &self.pull()).await?;
        match sent.answer.status() {
            StatusCode::PARTIAL_CONTENT | StatusCode::OK => {
                if let Some(url) = sent.moved_to {
                    self.moved().keep(*digest, url);
                }
                read(sent.answer, digest, &range, length).await
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let digest = *digest;
                Err(SourceError::RangeOutside { digest, range })
            }
            _ => Err(sent.answer.into_error().await),
        }
    }
}

/// The length of a range that one read may ask for.
pub(crate) fn check(digest: &Digest, range: &Range<u64>) -> Result<usize, SourceError> {
    let bytes = range
        .end
        .checked_sub(range.start)
        .ok_or_else(|| SourceError::RangeOutside {
            digest: *digest,
            range: range.clone(),
        })?;
    match usize::try_from(bytes) {
        Ok(length) if bytes <= RANGE_BYTES_MAX => Ok(length),
        _ => Err(SourceError::RangeTooLong {
            bytes,
            limit_bytes: RANGE_BYTES_MAX,
        }),
    }
}

/// A request for a range that isn't empty.
fn ranged(url: Url, range: &Range<u64>) -> Result<Request, SourceError> {
    let last = range.end.saturating_sub(1);
    let value = HeaderValue::from_str(&format!("bytes={}-{last}", range.start));
    let value = value.map_err(|_| SourceError::Protocol {
        host: String::new(),
        what: "range makes no header",
    })?;
    Ok(Request::new(Method::GET, url)
        .with_header(RANGE.as_str(), value)
        // The blob's own bytes, not a compressed form of them.
        .with_header(
            ACCEPT_ENCODING.as_str(),
            HeaderValue::from_static("identity"),
        ))
}

/// Reads the body of a 206, or the front of a 200 up to the range's end.
async fn read(
    mut answer: Answer,
    digest: &Digest,
    range: &Range<u64>,
    length: usize,
) -> Result<Bytes, SourceError> {
    let mut skip = 0;
    if answer.status() == StatusCode::PARTIAL_CONTENT {
        check_content_range(&answer, range)?;
    } else {
        if range.start > SKIP_BYTES_MAX {
            return Err(SourceError::RangeIgnored {
                host: answer.host().to_owned(),
                digest: *digest,
                start: range.start,
                skip_bytes_max: SKIP_BYTES_MAX,
            });
        }
        if answer
            .content_length()
            .is_some_and(|bytes| bytes < range.end)
        {
            return Err(SourceError::RangeOutside {
                digest: *digest,
                range: range.clone(),
            });
        }
        // No more than SKIP_BYTES_MAX.
        skip = usize::try_from(range.start).unwrap_or(usize::MAX);
    }
    let deadline = answer.deadline(range.end.saturating_sub(range.start));
    let mut body = BytesMut::new();
    while body.len() < length {
        let Some(mut piece) = answer.chunk_before(deadline).await? else {
            return Err(SourceError::ShortBody {
                host: answer.host().to_owned(),
                expected: u64::try_from(length).unwrap_or(u64::MAX),
                got: u64::try_from(body.len()).unwrap_or(u64::MAX),
            });
        };
        let skipped = piece.split_to(skip.min(piece.len()));
        skip = skip.saturating_sub(skipped.len());
        piece.truncate(length.saturating_sub(body.len()));
        if body.is_empty() && piece.len() == length {
            body = BytesMut::from(piece);
            break;
        }
        body.reserve(length.saturating_sub(body.len()));
        body.extend_from_slice(&piece);
    }
    if answer.status() == StatusCode::PARTIAL_CONTENT {
        // Its end, so that the connection is used again.
        answer.discard().await;
    }
    Ok(body.freeze())
}

/// Refuses an answer that is for another range.
fn check_content_range(answer: &Answer, range: &Range<u64>) -> Result<(), SourceError> {
    let told = answer.header(CONTENT_RANGE.as_str()).unwrap_or_default();
    if parse_content_range(told) == Some((range.start, range.end)) {
        return Ok(());
    }
    Err(SourceError::ContentRange {
        host: answer.host().to_owned(),
        asked: range.clone(),
        told: told.to_owned(),
    })
}

/// `bytes FIRST-LAST/TOTAL` as first byte and the one after the last.
pub(crate) fn parse_content_range(text: &str) -> Option<(u64, u64)> {
    let (bounds, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = bounds.trim().split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let end = last.checked_add(1)?;
    let within = total == "*" || total.parse::<u64>().ok()? >= end;
    (first < end && within).then_some((first, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_strictly() {
        for (text, expect) in [
            ("bytes 0-9/10", Some((0, 10))),
            ("bytes 5-9/*", Some((5, 10))),
            ("bytes 5-9/9", None),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("5-9/10", None),
            ("bytes 5-18446744073709551615/*", None),
            ("", None),
        ] {
            assert_eq!(parse_content_range(text), expect, "{text}");
        }
    }

    #[test]
    fn ranges_are_bounded() {
        let digest = Digest::sha256(b"");
        assert_eq!(check(&digest, &(3..10)).unwrap(), 7);
        assert!(check(&digest, &(0..RANGE_BYTES_MAX + 1)).is_err());
        #[expect(clippy::reversed_empty_ranges, reason = "that is what is refused")]
        let backwards = 3..2;
        assert!(check(&digest, &backwards).is_err());
    }
}
