//! Blobs: read, in part or whole, and deleted.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Response, StatusCode, header};
use draught_digest::Digest;

use super::answer::Answer;
use super::body::{self, blocking};
use super::error::{ApiError, Code};
use super::range::{Wanted, wanted};
use super::serve::{App, Call};
use crate::names::RepositoryName;

pub(super) fn unknown(name: &RepositoryName, digest: &Digest) -> ApiError {
    ApiError::not_found(Code::BlobUnknown, format!("{name} has no blob {digest}"))
}

/// `GET` and `HEAD`.
pub(super) async fn read(
    app: &App,
    call: &Call,
    name: RepositoryName,
    digest: Digest,
) -> Result<Response<Body>, ApiError> {
    let storage = Arc::clone(&app.registry.storage);
    let opened = blocking(move || {
        let Some(file) = storage.open_blob(&name, &digest)? else {
            return Ok(Err(unknown(&name, &digest)));
        };
        let bytes = file.metadata()?.len();
        Ok::<_, std::io::Error>(Ok((file, bytes)))
    });
    let (file, bytes) = opened.await???;
    let answer = |status| {
        Answer::new(status)
            .digest(&digest)
            .etag(&digest)
            .header(header::ACCEPT_RANGES, "bytes")
            // What a digest names never changes.
            .header(header::CACHE_CONTROL, "max-age=31536000")
    };
    let etag = digest.to_string();
    if call.has_match(header::IF_NONE_MATCH, &etag) {
        return Ok(answer(StatusCode::NOT_MODIFIED).finish());
    }
    // A range holds only for the version that the client has seen the rest of.
    let same = call.header(header::IF_RANGE).is_none() || call.has_match(header::IF_RANGE, &etag);
    let header = call.header(header::RANGE).filter(|_| same);
    let (answer, range) = match wanted(header, bytes) {
        Wanted::Whole => (answer(StatusCode::OK), 0..bytes),
        Wanted::Part(range) => {
            let said = format!("bytes {}-{}/{bytes}", range.start, range.end - 1);
            let answer = answer(StatusCode::PARTIAL_CONTENT);
            (answer.header(header::CONTENT_RANGE, said), range)
        }
        Wanted::Nothing => {
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            let words = format!("the blob has {bytes} bytes");
            return Err(ApiError::new(status, Code::RangeInvalid, words)
                .with_header(header::CONTENT_RANGE, &format!("bytes */{bytes}")));
        }
    };
    let answer = answer.header(
        header::CONTENT_LENGTH,
        (range.end - range.start).to_string(),
    );
    let body = match call.parts.method {
        Method::HEAD => Body::empty(),
        _ => body::of_file(file, range, app.closing.clone()),
    };
    Ok(answer.body("application/octet-stream", body))
}

/// `DELETE`.
pub(super) async fn delete(
    app: &App,
    name: RepositoryName,
    digest: Digest,
) -> Result<Response<Body>, ApiError> {
    let storage = Arc::clone(&app.registry.storage);
    let asked = name.clone();
    match blocking(move || storage.remove_blob(&asked, &digest)).await?? {
        true => Ok(Answer::new(StatusCode::ACCEPTED).finish()),
        false => Err(unknown(&name, &digest)),
    }
}
