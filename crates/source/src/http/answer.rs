//! Answers: their headers, and their bodies within limits and time.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, RETRY_AFTER};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use crate::error::SourceError;
use crate::settings::{ERROR_BYTES_MAX, RATE_BYTES_PER_S_MIN};

/// Characters of a registry's message that an error repeats.
const DETAIL_CHARS_MAX: usize = 300;

/// How long the end of a body that nobody needs is waited for: a new connection costs less.
const DISCARD_TIMEOUT: Duration = Duration::from_millis(200);

/// An answer whose body is still to come. Its place among the host's requests is free when it is dropped.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(super) host: String,
    pub(super) request: String,
    pub(super) response: reqwest::Response,
    pub(super) stall_timeout: Duration,
    pub(super) _permit: OwnedSemaphorePermit,
}

impl Answer {
    /// Its status.
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Who answered.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// All headers.
    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// The announced length of the body.
    pub(crate) fn content_length(&self) -> Option<u64> {
        self.headers()
            .get(CONTENT_LENGTH)?
            .to_str()
            .ok()?
            .parse()
            .ok()
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, SourceError> {
        let deadline = Instant::now() + self.stall_timeout;
        self.chunk_before(deadline).await
    }

    /// When a body of this length must be there.
    pub(crate) fn deadline(&self, bytes: u64) -> Instant {
        let transfer = Duration::from_secs(bytes / RATE_BYTES_PER_S_MIN);
        Instant::now() + self.stall_timeout + transfer
    }

    /// The next piece of the body, if it comes before the deadline and without a silence.
    pub(crate) async fn chunk_before(
        &mut self,
        deadline: Instant,
    ) -> Result<Option<Bytes>, SourceError> {
        let wait = deadline
            .saturating_duration_since(Instant::now())
            .min(self.stall_timeout);
        match tokio::time::timeout(wait, self.response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(source)) => Err(SourceError::transport(&self.host, source)),
            Err(_) if wait < self.stall_timeout => Err(SourceError::TooSlow {
                host: self.host.clone(),
                rate_bytes_per_s_min: RATE_BYTES_PER_S_MIN,
            }),
            Err(_) => Err(SourceError::Stalled {
                host: self.host.clone(),
                silent_ms: self.stall_timeout.as_millis(),
            }),
        }
    }

    /// The whole body, if it is no longer than `limit_bytes`.
    pub(crate) async fn bytes(
        mut self,
        what: &str,
        limit_bytes: usize,
    ) -> Result<Bytes, SourceError> {
        let limit = u64::try_from(limit_bytes).unwrap_or(u64::MAX);
        let too_long = || SourceError::TooLong {
            what: what.to_owned(),
            limit_bytes: limit,
        };
        let announced = self.content_length().map(usize::try_from);
        let capacity = match announced {
            None => 0,
            Some(Ok(bytes)) if bytes <= limit_bytes => bytes,
            Some(_) => return Err(too_long()),
        };
        let deadline = self.deadline(self.content_length().unwrap_or(limit));
        let mut body = BytesMut::with_capacity(capacity);
        while let Some(piece) = self.chunk_before(deadline).await? {
            if piece.len() > limit_bytes.saturating_sub(body.len()) {
                return Err(too_long());
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    /// Reads a short body to its end, so that the connection can be used again; gives up early, for the body
    /// is of no interest.
    pub(crate) async fn discard(mut self) {
        let mut left = ERROR_BYTES_MAX;
        let deadline = Instant::now() + self.stall_timeout.min(DISCARD_TIMEOUT);
        while left > 0 {
            match self.chunk_before(deadline).await {
                Ok(Some(piece)) => left = left.saturating_sub(piece.len()),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// The error that this answer is, with what the registry says about it.
    pub(crate) async fn into_error(self) -> SourceError {
        self.into_error_told(detail).await
    }

    /// The error that this answer is, with what `tell` makes of its body: empty, or after `": "`.
    pub(crate) async fn into_error_told(self, tell: impl FnOnce(&[u8]) -> String) -> SourceError {
        let (host, request, status) = (self.host.clone(), self.request.clone(), self.status());
        let retry_after = retry_after(self.headers());
        let detail = match self.bytes("error", ERROR_BYTES_MAX).await {
            Ok(body) => tell(&body),
            Err(_) => String::new(),
        };
        SourceError::Status {
            host,
            request,
            status: status.as_u16(),
            detail,
            retry_after,
        }
    }
}

/// An error for an answer without a body worth reading.
pub(crate) fn status_error(answer: &Answer) -> SourceError {
    SourceError::Status {
        host: answer.host.clone(),
        request: answer.request.clone(),
        status: answer.status().as_u16(),
        detail: String::new(),
        retry_after: retry_after(answer.headers()),
    }
}

/// `Retry-After` in seconds; the form with a date is left alone, nobody's registry sends it.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

#[derive(Deserialize)]
struct WireErrors {
    #[serde(default)]
    errors: Vec<WireError>,
}

#[derive(Deserialize)]
struct WireError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What a registry says in its error's body, made fit for a line of log.
fn detail(body: &[u8]) -> String {
    let Ok(wire) = serde_json::from_slice::<WireErrors>(body) else {
        return String::new();
    };
    let words: Vec<String> = wire
        .errors
        .into_iter()
        .map(
            |error| match (error.code.as_str(), error.message.as_str()) {
                ("", message) => message.to_owned(),
                (code, "") => code.to_owned(),
                (code, message) => format!("{code} ({message})"),
            },
        )
        .collect();
    let text: String = words
        .join(", ")
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(DETAIL_CHARS_MAX)
        .collect();
    if text.is_empty() {
        text
    } else {
        format!(": {text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_registries_become_one_line() {
        let check = |body: &str, expect: &str| assert_eq!(detail(body.as_bytes()), expect);
        check("", "");
        check("<html>", "");
        check("{}", "");
        check(
            "{\"errors\":[{\"code\":\"BLOB_UNKNOWN\",\"message\":\"no\\nsuch\\u001b[0m blob\",\"detail\":{}}]}",
            ": BLOB_UNKNOWN (no such [0m blob)",
        );
        check(
            "{\"errors\":[{\"code\":\"A\"},{\"message\":\"b\"}]}",
            ": A, b",
        );
        let long = format!("{{\"errors\":[{{\"message\":\"{}\"}}]}}", "x".repeat(1000));
        assert_eq!(detail(long.as_bytes()).len(), DETAIL_CHARS_MAX + 2);
    }
}
