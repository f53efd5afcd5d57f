//! What OpenDAL sends its requests through: it makes them unsigned and never speaks to the network itself.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport};
use parking_lot::Mutex;
use reqwest::Method;
use reqwest::header::{CONTENT_RANGE, HeaderValue, RANGE};

use super::error::ObjectError;
use super::wire::{Call, Wire};
use crate::error::{Class, SourceError};
use crate::http::Lane;
use crate::registry::parse_content_range;
use crate::settings::RANGE_BYTES_MAX;

/// The way to a bucket, as OpenDAL takes it.
#[derive(Debug, Clone)]
pub(super) struct Transport(pub(super) Arc<Wire>);

impl HttpTransport for Transport {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        let (parts, body) = request.into_parts();
        let is_head = parts.method == Method::HEAD;
        let asked = parts.headers.get(RANGE).and_then(asked_range);
        let call = Call {
            method: parts.method,
            uri: parts.uri.to_string(),
            headers: parts.headers,
            body: body.to_bytes(),
            lane: Lane::Request,
        };
        let answer = self.0.send(call).await.map_err(carry)?;
        let host = answer.host().to_owned();
        let mut expected = None;
        if let Some(asked) = asked {
            if answer.status() != StatusCode::PARTIAL_CONTENT {
                let what = "all of an object came instead of a range";
                let error = ObjectError::Answer { what };
                return Err(carry(error.at(format!("asking {}", self.0.label))));
            }
            let told = answer.header(CONTENT_RANGE.as_str()).unwrap_or_default();
            match parse_content_range(told) {
                Some((start, end)) if (start..end) == asked => expected = end.checked_sub(start),
                _ => {
                    let told = told.to_owned();
                    return Err(carry(SourceError::ContentRange { host, asked, told }));
                }
            }
        }
        let mut response = Response::new(());
        *response.status_mut() = answer.status();
        response.headers_mut().clone_from(answer.headers());
        let limit = usize::try_from(RANGE_BYTES_MAX).unwrap_or(usize::MAX);
        let bytes = match is_head {
            true => Bytes::new(),
            false => answer.bytes("object", limit).await.map_err(carry)?,
        };
        let size = u64::try_from(bytes.len()).ok();
        if let (Some(expected), Some(got)) = (expected, size)
            && expected != got
        {
            return Err(carry(SourceError::ShortBody {
                host,
                expected,
                got,
            }));
        }
        let pieces = futures_util::stream::iter([Ok(Buffer::from(bytes))]);
        Ok(response.map(|()| HttpBody::new(pieces, size)))
    }
}

/// The range that a request asks for.
fn asked_range(header: &HeaderValue) -> Option<Range<u64>> {
    let (first, last) = header
        .to_str()
        .ok()?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    let last: u64 = last.parse().ok()?;
    Some(first.parse().ok()?..last.checked_add(1)?)
}

/// One of our errors on its way through OpenDAL.
#[derive(Debug, thiserror::Error)]
#[error("a request failed")]
struct Carried(Mutex<Option<SourceError>>);

fn carry(error: SourceError) -> Error {
    let carried = Carried(Mutex::new(Some(error)));
    Error::new(ErrorKind::Unexpected, "a request failed").set_source(carried)
}

/// Our own error again. One of OpenDAL's own shows its kind only: its text may have headers in it.
pub(super) fn unwrap(error: &Error, what: impl FnOnce() -> String) -> SourceError {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let carried = inner.downcast_ref::<Carried>();
        if let Some(error) = carried.and_then(|carried| carried.0.lock().take()) {
            return error;
        }
        source = inner.source();
    }
    let kind = error.kind();
    let library = ObjectError::Library {
        kind: kind.into_static(),
    };
    let class = match kind {
        _ if error.is_temporary() => Class::Unavailable { retry_after: None },
        ErrorKind::NotFound => Class::NotFound,
        ErrorKind::PermissionDenied => Class::Denied,
        _ => Class::Refused,
    };
    SourceError::Backend {
        what: what(),
        class,
        source: Box::new(library),
    }
}
