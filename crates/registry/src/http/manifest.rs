//! Manifests: read, pushed, deleted.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Response, StatusCode, header};
use draught_digest::Digest;

use super::answer::{Answer, OCI_SUBJECT};
use super::body::{Incoming, blocking};
use super::error::{ApiError, Code};
use super::serve::{App, Call};
use crate::manifest::{Manifest, parse};
use crate::names::{Reference, RepositoryName, Tag, parse_digest};
use crate::storage::{Storage, TagGuard, TagOutcome};

fn unknown(name: &RepositoryName, reference: &Reference) -> ApiError {
    let what = match reference {
        Reference::Tag(tag) => format!("tag {:?}", tag.as_str()),
        Reference::Digest(digest) => format!("manifest {digest}"),
    };
    ApiError::not_found(Code::ManifestUnknown, format!("{name} has no {what}"))
}

/// `GET` and `HEAD`; what is stored is answered, whatever `Accept` says.
pub(super) async fn read(
    app: &App,
    call: &Call,
    name: RepositoryName,
    reference: Reference,
) -> Result<Response<Body>, ApiError> {
    let storage = Arc::clone(&app.registry.storage);
    let found = blocking(move || {
        let digest = match &reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(tag) => storage.tag(&name, tag)?,
        };
        let stored = match &digest {
            Some(digest) => storage.manifest(&name, digest)?,
            None => None,
        };
        Ok::<_, io::Error>(digest.zip(stored).ok_or_else(|| unknown(&name, &reference)))
    });
    let (digest, stored) = found.await???;
    let answer = |status| Answer::new(status).digest(&digest).etag(&digest);
    if call.has_match(header::IF_NONE_MATCH, &digest.to_string()) {
        return Ok(answer(StatusCode::NOT_MODIFIED).finish());
    }
    let answer =
        answer(StatusCode::OK).header(header::CONTENT_LENGTH, stored.bytes.len().to_string());
    let body = match call.parts.method {
        Method::HEAD => Body::empty(),
        _ => Body::from(stored.bytes),
    };
    Ok(answer.body(&stored.media_type, body))
}

/// `PUT`.
pub(super) async fn write(
    app: &App,
    call: &Call,
    body: Body,
    name: RepositoryName,
    reference: Reference,
) -> Result<Response<Body>, ApiError> {
    let options = &app.registry.options;
    let guard = tag_guard(call)?;
    let content_type = call.header(header::CONTENT_TYPE).map(str::to_owned);
    let incoming = Incoming::new(body, options.body_stall);
    let bytes = incoming
        .collect(options.manifest_bytes_max)
        .await
        .map_err(|mut error| {
            error.body_unread = true;
            error
        })?;
    let storage = Arc::clone(&app.registry.storage);
    blocking(move || {
        let digest = Digest::sha256(&bytes);
        if let Reference::Digest(wanted) = reference
            && wanted != digest
        {
            let words = format!("the manifest has the digest {digest}, not {wanted}");
            return Err(ApiError::bad_request(Code::DigestInvalid, words));
        }
        let manifest = parse(content_type.as_deref(), &bytes)
            .map_err(|words| ApiError::bad_request(Code::ManifestInvalid, words))?;
        check_complete(&storage, &name, &manifest)?;
        let subject = manifest.subject.as_ref();
        storage.add_manifest(&name, &digest, &manifest.media_type, &bytes, subject)?;
        let last = match &reference {
            Reference::Digest(digest) => digest.to_string(),
            Reference::Tag(tag) => set_tag(&storage, &name, tag, &digest, guard)?,
        };
        let mut answer = Answer::new(StatusCode::CREATED)
            .digest(&digest)
            .header(header::LOCATION, format!("/v2/{name}/manifests/{last}"));
        if let Some(subject) = subject {
            answer = answer.header(OCI_SUBJECT, subject.to_string());
        }
        Ok(answer.finish())
    })
    .await?
}

/// What the conditional headers ask of the tag.
fn tag_guard(call: &Call) -> Result<TagGuard, ApiError> {
    if call
        .header(header::IF_NONE_MATCH)
        .is_some_and(|value| value.trim() == "*")
    {
        return Ok(TagGuard::Absent);
    }
    let Some(value) = call.header(header::IF_MATCH) else {
        return Ok(TagGuard::Any);
    };
    let digest = parse_digest(value.trim().trim_matches('"'));
    digest.map(TagGuard::Is).map_err(|words| {
        let mut error = ApiError::bad_request(Code::DigestInvalid, words);
        error.body_unread = true;
        error
    })
}

fn set_tag(
    storage: &Storage,
    name: &RepositoryName,
    tag: &Tag,
    digest: &Digest,
    guard: TagGuard,
) -> Result<String, ApiError> {
    match storage.set_tag(name, tag, digest, guard)? {
        TagOutcome::Set => Ok(tag.as_str().to_owned()),
        TagOutcome::Kept(now) => {
            let now = now.map_or_else(|| "nothing".to_owned(), |digest| digest.to_string());
            let words = format!("the tag {:?} names {now}", tag.as_str());
            let status = StatusCode::PRECONDITION_FAILED;
            Err(ApiError::new(status, Code::PreconditionFailed, words))
        }
    }
}

/// An image whose parts are missing must not become visible: nobody could pull it.
fn check_complete(
    storage: &Storage,
    name: &RepositoryName,
    manifest: &Manifest,
) -> Result<(), ApiError> {
    for digest in &manifest.blobs {
        if !storage.has_blob(name, digest)? {
            return Err(incomplete(format!(
                "{name} has no blob {digest}; push it first"
            )));
        }
    }
    for digest in &manifest.manifests {
        if !storage.has_manifest(name, digest)? {
            return Err(incomplete(format!(
                "{name} has no manifest {digest}; push it first"
            )));
        }
    }
    Ok(())
}

fn incomplete(words: String) -> ApiError {
    ApiError::bad_request(Code::ManifestBlobUnknown, words)
}

/// `DELETE`.
pub(super) async fn delete(
    app: &App,
    name: RepositoryName,
    reference: Reference,
) -> Result<Response<Body>, ApiError> {
    let storage = Arc::clone(&app.registry.storage);
    blocking(move || {
        let there = match &reference {
            Reference::Tag(tag) => storage.remove_tag(&name, tag)?,
            Reference::Digest(digest) => remove(&storage, &name, digest)?,
        };
        match there {
            true => Ok(Answer::new(StatusCode::ACCEPTED).finish()),
            false => Err(unknown(&name, &reference)),
        }
    })
    .await?
}

fn remove(storage: &Storage, name: &RepositoryName, digest: &Digest) -> io::Result<bool> {
    let Some(stored) = storage.manifest(name, digest)? else {
        return Ok(false);
    };
    // What can't be read any more has no entry at a subject that we could find.
    let subject = parse(Some(&stored.media_type), &stored.bytes)
        .ok()
        .and_then(|manifest| manifest.subject);
    storage.remove_manifest(name, digest, subject.as_ref())
}
