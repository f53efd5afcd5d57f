//! Blobs pushed: in one request, in a stream, in chunks, or mounted from another repository.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use bytes::Bytes;
use draught_digest::Digest;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;

use super::answer::{Answer, UPLOAD_UUID};
use super::body::{Incoming, blocking};
use super::error::{ApiError, Code};
use super::range;
use super::serve::{App, Call};
use crate::names::{RepositoryName, parse_digest};
use crate::storage::{StartError, Upload};

/// Bytes gathered from the network before they are hashed and written: enough to make the hop to
/// a blocking thread cheap. Twice this is the memory that an upload takes.
const WRITE_BYTES: usize = 1 << 20;

type Guard = OwnedMutexGuard<Upload>;

/// `POST`: begins an upload, or does all of it.
pub(super) async fn start(
    app: &App,
    call: &Call,
    body: Body,
    name: RepositoryName,
) -> Result<Response<Body>, ApiError> {
    if let Some(algorithm) = call
        .parameter("digest-algorithm")
        .filter(|name| name != "sha256")
    {
        let words = format!("digests of the algorithm {algorithm:?} are not supported; use sha256");
        return Err(ApiError::bad_request(Code::DigestInvalid, words));
    }
    if let Some(mount) = call.parameter("mount") {
        let digest = digest_parameter(Some(&mount))?;
        if mount_blob(app, call, &name, digest).await? {
            return Ok(created(&name, &digest));
        }
        // Whoever can't mount uploads.
        return begin(app, &name).await;
    }
    let Some(digest) = call.parameter("digest") else {
        return begin(app, &name).await;
    };
    let digest = digest_parameter(Some(&digest))?;
    let uploads = Arc::clone(&app.registry.uploads);
    let upload = blocking(move || uploads.anonymous()).await??;
    let guard = Arc::new(tokio::sync::Mutex::new(upload)).lock_owned().await;
    let guard = receive(app, call, body, guard).await?;
    store(app, guard, &name, digest).await?;
    Ok(created(&name, &digest))
}

async fn mount_blob(
    app: &App,
    call: &Call,
    name: &RepositoryName,
    digest: Digest,
) -> Result<bool, ApiError> {
    let from = match call.parameter("from") {
        None => None,
        // A source that can't exist is one that does not have the blob.
        Some(text) => match RepositoryName::parse(&text) {
            None => return Ok(false),
            from => from,
        },
    };
    let storage = Arc::clone(&app.registry.storage);
    let name = name.clone();
    Ok(blocking(move || storage.mount_blob(&name, &digest, from.as_ref())).await??)
}

async fn begin(app: &App, name: &RepositoryName) -> Result<Response<Body>, ApiError> {
    let uploads = Arc::clone(&app.registry.uploads);
    let repository = name.clone();
    let id = blocking(move || uploads.start(&repository)).await?;
    let id = id.map_err(|error| match error {
        StartError::Io { source } => ApiError::from(source),
        StartError::TooMany { .. } => ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            Code::TooManyRequests,
            error.to_string(),
        )
        .with_header(header::RETRY_AFTER, "10"),
    })?;
    Ok(progress(StatusCode::ACCEPTED, name, &id, 0))
}

/// `GET`: how far an upload is.
pub(super) async fn status(
    app: &App,
    name: &RepositoryName,
    id: &str,
) -> Result<Response<Body>, ApiError> {
    let guard = find(app, name, id).await?;
    Ok(progress(StatusCode::NO_CONTENT, name, id, guard.bytes()))
}

/// `DELETE`: gives an upload up.
pub(super) fn cancel(
    app: &App,
    name: &RepositoryName,
    id: &str,
) -> Result<Response<Body>, ApiError> {
    let uploads = &app.registry.uploads;
    uploads.find(name, id).ok_or_else(|| unknown(id))?;
    uploads.forget(id);
    Ok(Answer::new(StatusCode::NO_CONTENT).finish())
}

/// `PATCH`: adds to an upload.
pub(super) async fn append(
    app: &App,
    call: &Call,
    body: Body,
    name: &RepositoryName,
    id: &str,
) -> Result<Response<Body>, ApiError> {
    let guard = find(app, name, id).await?;
    check_position(call, &guard, name, id)?;
    let guard = receive(app, call, body, guard).await?;
    Ok(progress(StatusCode::ACCEPTED, name, id, guard.bytes()))
}

/// `PUT`: ends an upload, perhaps with its last bytes or all of them.
pub(super) async fn finish(
    app: &App,
    call: &Call,
    body: Body,
    name: RepositoryName,
    id: &str,
) -> Result<Response<Body>, ApiError> {
    let guard = find(app, &name, id).await?;
    let digest = digest_parameter(call.parameter("digest").as_deref())?;
    check_position(call, &guard, &name, id)?;
    let guard = receive(app, call, body, guard).await?;
    let result = store(app, guard, &name, digest).await;
    app.registry.uploads.forget(id);
    result?;
    Ok(created(&name, &digest))
}

async fn find(app: &App, name: &RepositoryName, id: &str) -> Result<Guard, ApiError> {
    let upload = app
        .registry
        .uploads
        .find(name, id)
        .ok_or_else(|| unknown(id))?;
    // The request before this one may still be writing its last bytes, but no longer than its
    // own body may stall.
    let guard = tokio::time::timeout(app.registry.options.body_stall, upload.lock_owned());
    let guard = guard.await.map_err(|_| {
        let words = "another request is writing to this upload";
        ApiError::new(StatusCode::CONFLICT, Code::BlobUploadInvalid, words)
    })?;
    if !guard.is_open() {
        app.registry.uploads.forget(id);
        return Err(unknown(id));
    }
    Ok(guard)
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(
        Code::BlobUploadUnknown,
        format!("there is no upload {id:?}; begin again"),
    )
}

/// Chunks come in order, each where the last one ended and as long as it says.
fn check_position(
    call: &Call,
    upload: &Upload,
    name: &RepositoryName,
    id: &str,
) -> Result<(), ApiError> {
    let Some(header) = call.header(header::CONTENT_RANGE) else {
        return Ok(());
    };
    let at = upload.bytes();
    let length = call
        .header(header::CONTENT_LENGTH)
        .and_then(|text| text.parse::<u64>().ok());
    let words = match range::chunk(header) {
        None => format!("{header:?} is no range of an upload: write FIRST-LAST"),
        Some(chunk) if chunk.start != at => format!("the next byte of this upload is {at}"),
        Some(chunk) if length.is_some_and(|length| length != chunk.end - chunk.start) => {
            "Content-Range and Content-Length do not agree".to_owned()
        }
        Some(_) => return Ok(()),
    };
    let mut error = ApiError::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        Code::BlobUploadInvalid,
        words,
    )
    .with_header(header::LOCATION, &location(name, id))
    .with_header(header::RANGE, &so_far(at));
    error.body_unread = true;
    Err(error)
}

/// Takes the request's body into the upload; hashing and writing overlap with receiving.
///
/// What came before an error stays, so that the client can go on from there.
async fn receive(app: &App, call: &Call, body: Body, upload: Guard) -> Result<Guard, ApiError> {
    let options = &app.registry.options;
    let bytes_max = options.blob_bytes_max;
    let declared = call
        .header(header::CONTENT_LENGTH)
        .and_then(|text| text.parse::<u64>().ok());
    let mut bytes_after = upload.bytes();
    if bytes_after.saturating_add(declared.unwrap_or(0)) > bytes_max {
        return Err(too_large(bytes_max));
    }
    let mut incoming = Incoming::new(body, options.body_stall);
    let mut writer = Writer::Idle(upload);
    let mut batch = Vec::new();
    let mut batch_bytes = 0;
    let result = loop {
        match incoming.next().await {
            Ok(Some(bytes)) => {
                bytes_after += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                if bytes_after > bytes_max {
                    break Err(too_large(bytes_max));
                }
                batch_bytes += bytes.len();
                batch.push(bytes);
                if batch_bytes >= WRITE_BYTES {
                    writer = match writer.write(std::mem::take(&mut batch)).await {
                        Ok(writer) => writer,
                        Err(error) => {
                            incoming.drain().await;
                            return Err(error);
                        }
                    };
                    batch_bytes = 0;
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let upload = writer.write(batch).await?.idle().await?;
    result.map(|()| upload)
}

fn too_large(bytes_max: u64) -> ApiError {
    let words = format!("a blob may have {bytes_max} bytes at most");
    let mut error = ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, words);
    error.body_unread = true;
    error
}

/// An upload that may be written to by a blocking thread right now.
///
/// The thread holds the upload's lock: if the request goes away, the write still ends before the
/// next request looks at it.
enum Writer {
    Idle(Guard),
    Busy(JoinHandle<(Guard, io::Result<()>)>),
}

impl Writer {
    async fn idle(self) -> Result<Guard, ApiError> {
        match self {
            Self::Idle(upload) => Ok(upload),
            Self::Busy(task) => {
                let (upload, result) = task.await.map_err(io::Error::other)?;
                result?;
                Ok(upload)
            }
        }
    }

    async fn write(self, batch: Vec<Bytes>) -> Result<Self, ApiError> {
        let mut upload = self.idle().await?;
        if batch.is_empty() {
            return Ok(Self::Idle(upload));
        }
        Ok(Self::Busy(tokio::task::spawn_blocking(move || {
            let result = upload.append(&batch);
            (upload, result)
        })))
    }
}

/// Makes the upload a blob, if it is the one that was announced.
async fn store(
    app: &App,
    mut upload: Guard,
    name: &RepositoryName,
    digest: Digest,
) -> Result<(), ApiError> {
    let storage = Arc::clone(&app.registry.storage);
    let name = name.clone();
    blocking(move || {
        let Some((file, found)) = upload.finish() else {
            return Err(ApiError::not_found(
                Code::BlobUploadUnknown,
                "the upload has ended",
            ));
        };
        if found != digest {
            let words = format!("the bytes have the digest {found}, not {digest}; push them again");
            return Err(ApiError::bad_request(Code::DigestInvalid, words));
        }
        Ok(storage.add_blob(&name, &digest, file)?)
    })
    .await?
}

fn digest_parameter(text: Option<&str>) -> Result<Digest, ApiError> {
    let words = "the parameter digest is missing".to_owned();
    let result = text.map_or(Err(words), parse_digest);
    result.map_err(|words| {
        let mut error = ApiError::bad_request(Code::DigestInvalid, words);
        error.body_unread = true;
        error
    })
}

fn created(name: &RepositoryName, digest: &Digest) -> Response<Body> {
    Answer::new(StatusCode::CREATED)
        .digest(digest)
        .header(header::LOCATION, format!("/v2/{name}/blobs/{digest}"))
        .finish()
}

fn progress(status: StatusCode, name: &RepositoryName, id: &str, bytes: u64) -> Response<Body> {
    Answer::new(status)
        .header(UPLOAD_UUID, id)
        .header(header::LOCATION, location(name, id))
        .header(header::RANGE, so_far(bytes))
        .finish()
}

fn location(name: &RepositoryName, id: &str) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

/// First and last byte so far; no byte is written as one, as docker does.
fn so_far(bytes: u64) -> String {
    format!("0-{}", bytes.saturating_sub(1))
}
