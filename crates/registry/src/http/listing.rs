//! Lists: repositories, tags, referrers.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use draught_digest::Digest;
use serde_json::json;

use super::answer::{Answer, OCI_FILTERS};
use super::body::blocking;
use super::error::{ApiError, Code};
use super::serve::{App, Call};
use super::text::encode;
use crate::manifest::{OCI_INDEX, parse};
use crate::names::RepositoryName;
use crate::storage::Storage;

/// Referrers in one answer, at most: with their annotations they must stay a document that clients
/// accept, and each takes a file to be read.
const REFERRERS_MAX: usize = 500;

/// `GET /v2/_catalog`.
pub(super) async fn catalog(app: &App, call: &Call) -> Result<Response<Body>, ApiError> {
    let storage = Arc::clone(&app.registry.storage);
    let names = blocking(move || storage.repositories()).await??;
    let page = Page::of(names, call)?;
    let document = json!({"repositories": page.names});
    Ok(page.link("/v2/_catalog").json(&document))
}

/// `GET …/tags/list`.
pub(super) async fn tags(
    app: &App,
    call: &Call,
    name: RepositoryName,
) -> Result<Response<Body>, ApiError> {
    let storage = Arc::clone(&app.registry.storage);
    let asked = name.clone();
    let tags = blocking(move || {
        let known = storage.knows(&asked);
        Ok::<_, io::Error>(known.then_some(storage.tags(&asked)?))
    });
    let Some(tags) = tags.await?? else {
        let words = format!("there is no repository {name}");
        return Err(ApiError::not_found(Code::NameUnknown, words));
    };
    let page = Page::of(tags, call)?;
    let document = json!({"name": name.as_str(), "tags": page.names});
    Ok(page.link(&format!("/v2/{name}/tags/list")).json(&document))
}

/// A part of a sorted list, as the parameters `n` and `last` ask for it.
struct Page {
    names: Vec<String>,
    count_max: Option<usize>,
    more: bool,
}

impl Page {
    fn of(mut names: Vec<String>, call: &Call) -> Result<Self, ApiError> {
        let count_max = match call.parameter("n").filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| {
                let words = format!("{text:?} is not a number of entries");
                ApiError::bad_request(Code::PaginationInvalid, words)
            })?),
        };
        if let Some(last) = call.parameter("last").filter(|text| !text.is_empty()) {
            names.retain(|name| *name > last);
        }
        let more = count_max.is_some_and(|count_max| names.len() > count_max);
        names.truncate(count_max.unwrap_or(usize::MAX));
        Ok(Self {
            names,
            count_max,
            more,
        })
    }

    /// The beginning of an answer that says where the next page is.
    fn link(&self, path: &str) -> Answer {
        let answer = Answer::new(StatusCode::OK);
        match (self.names.last(), self.count_max) {
            (Some(last), Some(count_max)) if self.more => {
                let last = encode(last);
                let link = format!("<{path}?n={count_max}&last={last}>; rel=\"next\"");
                answer.header(header::LINK, link)
            }
            _ => answer,
        }
    }
}

/// `GET …/referrers/DIGEST`: never unknown, at most empty.
pub(super) async fn referrers(
    app: &App,
    call: &Call,
    name: RepositoryName,
    subject: Digest,
) -> Result<Response<Body>, ApiError> {
    let wanted = call
        .parameter("artifactType")
        .filter(|kind| !kind.is_empty());
    let last = call.parameter("last").unwrap_or_default();
    let storage = Arc::clone(&app.registry.storage);
    let (asked, filter) = (name.clone(), wanted.clone());
    let (entries, next) =
        blocking(move || list_referrers(&storage, &asked, &subject, filter.as_deref(), &last))
            .await??;
    let document = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
    let mut answer = Answer::new(StatusCode::OK);
    let mut parameters = String::new();
    if let Some(wanted) = &wanted {
        answer = answer.header(OCI_FILTERS, "artifactType");
        parameters = format!("&artifactType={}", encode(wanted));
    }
    if let Some(next) = next {
        let link =
            format!("</v2/{name}/referrers/{subject}?last={next}{parameters}>; rel=\"next\"");
        answer = answer.header(header::LINK, link);
    }
    Ok(answer.body(OCI_INDEX, Body::from(document.to_string())))
}

type Referrers = (Vec<serde_json::Value>, Option<Digest>);

/// Descriptors of what refers to `subject`, and where the next page begins if there is one.
fn list_referrers(
    storage: &Storage,
    name: &RepositoryName,
    subject: &Digest,
    wanted: Option<&str>,
    last: &str,
) -> io::Result<Referrers> {
    let mut entries = Vec::new();
    let mut latest = None;
    for digest in storage.referrers(name, subject)? {
        if digest.to_string().as_str() <= last {
            continue;
        }
        // Between the list and this look it may have been deleted.
        let Some(stored) = storage.manifest(name, &digest)? else {
            continue;
        };
        let Ok(manifest) = parse(Some(&stored.media_type), &stored.bytes) else {
            continue;
        };
        if wanted.is_some() && manifest.artifact_type.as_deref() != wanted {
            continue;
        }
        if entries.len() == REFERRERS_MAX {
            return Ok((entries, latest));
        }
        latest = Some(digest);
        let mut entry = json!({
            "mediaType": stored.media_type,
            "digest": digest.to_string(),
            "size": stored.bytes.len(),
        });
        if let Some(kind) = manifest.artifact_type {
            entry["artifactType"] = kind.into();
        }
        if !manifest.annotations.is_empty() {
            entry["annotations"] = json!(manifest.annotations);
        }
        entries.push(entry);
    }
    Ok((entries, None))
}
