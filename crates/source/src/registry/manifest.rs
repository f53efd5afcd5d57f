//! Manifests and indexes of a registry.

use std::sync::Arc;

use bytes::Bytes;
use draught_digest::{Algorithm, Digest};
use draught_oci::{Any, Limits, Selector, media_type};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode, Url};

use super::client::RegistryRepository;
use crate::error::SourceError;
use crate::hosts::{Capability, Route};
use crate::http::{Answer, Body, Request};
use crate::retry;

/// The digest that the registry computed.
const DIGEST_HEADER: &str = "docker-content-digest";

/// What a registry that knows referrers answers to a manifest with a subject.
const SUBJECT_HEADER: &str = "oci-subject";

impl RegistryRepository {
    /// Fetches a manifest or index, verified against its digest, or against what the registry says of a tag.
    ///
    /// # Errors
    /// Of every class.
    pub async fn manifest(&self, selector: &Selector) -> Result<Any, SourceError> {
        let limits = Limits::default();
        let what = format!("{}, manifest {selector}", self.label());
        let (capability, digest) = match selector {
            Selector::Digest(digest) => (Capability::Pull, Some(digest)),
            Selector::Tag(_) => (Capability::Resolve, None),
        };
        // The body is part of what is tried again, and what it must be of what is tried elsewhere.
        let (media_type, body) = retry::insist(self.settings(), || {
            self.read_from_any(capability, digest, |route| {
                self.manifest_at(route, selector, &what)
            })
        })
        .await?;
        // Some registries call every manifest JSON: then its own field decides.
        let media_type = match media_type::essence(&media_type).as_str() {
            "application/json" | "text/plain" | "application/octet-stream" => String::new(),
            _ => media_type,
        };
        Any::parse(body.to_vec(), &media_type, &limits).map_err(|source| SourceError::Document {
            what,
            source: Box::new(source),
        })
    }

    /// A manifest's media type and bytes, as one host has them.
    async fn manifest_at(
        &self,
        route: Arc<Route>,
        selector: &Selector,
        what: &str,
    ) -> Result<(String, Bytes), SourceError> {
        let url = self.url_at(&route, &format!("manifests/{selector}"))?;
        let request = Request::new(Method::GET, url)
            .with_header(ACCEPT.as_str(), accepted()?)
            .to(&route);
        let answer = self
            .expect(&request, &self.pull(), &[StatusCode::OK])
            .await?;
        let media_type = answer
            .header(CONTENT_TYPE.as_str())
            .unwrap_or_default()
            .to_owned();
        let expected = match selector {
            Selector::Digest(digest) => Some(*digest),
            Selector::Tag(_) => told_digest(&answer),
        };
        let limit_bytes = Limits::default().document_bytes_max;
        let body = answer.bytes(what, limit_bytes).await?;
        check(expected, &body)?;
        Ok((media_type, body))
    }

    /// Writes a manifest or index, under a tag or only under its digest. A subject is made known to
    /// registries without the referrers API through the tag that stands in for it.
    ///
    /// # Errors
    /// Of every class.
    pub async fn put_manifest(&self, tag: Option<&str>, document: &Any) -> Result<(), SourceError> {
        let selector = match tag {
            Some(tag) => Selector::Tag(tag.to_owned()),
            None => Selector::Digest(document.digest()),
        };
        let content_type = HeaderValue::from_str(document.media_type())
            .map_err(|_| self.senseless("media type has characters that no header can carry"))?;
        let request = Request::new(Method::PUT, self.manifest_url(&selector)?)
            .with_header(CONTENT_TYPE.as_str(), content_type)
            .with_body(Body::Bytes(Bytes::copy_from_slice(document.bytes())));
        let answer = self
            .insist(
                &request,
                &self.push(),
                &[StatusCode::CREATED, StatusCode::OK],
            )
            .await?;
        if let Some(got) = told_digest(&answer).filter(|got| *got != document.digest()) {
            return Err(SourceError::Mismatch {
                digest: document.digest(),
                got,
                bytes: u64::try_from(document.bytes().len()).unwrap_or(u64::MAX),
            });
        }
        let knows_referrers = answer.header(SUBJECT_HEADER).is_some();
        answer.discard().await;
        match document.subject() {
            Some(subject) if !knows_referrers => self.add_referrer(subject, document).await,
            _ => Ok(()),
        }
    }

    /// Deletes a manifest (by digest) or a tag.
    ///
    /// # Errors
    /// Of every class; many registries refuse to delete.
    pub async fn delete_manifest(&self, selector: &Selector) -> Result<(), SourceError> {
        self.delete(self.manifest_url(selector)?).await
    }

    pub(super) async fn delete(&self, url: Url) -> Result<(), SourceError> {
        let request = Request::new(Method::DELETE, url);
        let expected = [StatusCode::ACCEPTED, StatusCode::OK, StatusCode::NO_CONTENT];
        let scope = self.scope("delete,pull,push", None);
        let answer = self.insist(&request, &scope, &expected).await?;
        answer.discard().await;
        Ok(())
    }

    fn manifest_url(&self, selector: &Selector) -> Result<Url, SourceError> {
        self.url(&format!("manifests/{selector}"))
    }
}

/// The `Accept` header with all that we understand.
fn accepted() -> Result<HeaderValue, SourceError> {
    let all = media_type::MANIFESTS_ACCEPTED.join(", ");
    HeaderValue::from_str(&all).map_err(|_| SourceError::Protocol {
        host: String::new(),
        what: "media types make no header",
    })
}

/// The registry's own digest of an answer, if it is of a kind that we know.
fn told_digest(answer: &Answer) -> Option<Digest> {
    answer
        .header(DIGEST_HEADER)?
        .parse()
        .ok()
        .filter(|digest: &Digest| digest.algorithm() == Algorithm::Sha256)
}

/// Refuses other bytes than those expected.
fn check(expected: Option<Digest>, body: &Bytes) -> Result<(), SourceError> {
    match expected {
        Some(digest) if !digest.verifies(body) => Err(SourceError::Mismatch {
            digest,
            got: Digest::sha256(body),
            bytes: u64::try_from(body.len()).unwrap_or(u64::MAX),
        }),
        _ => Ok(()),
    }
}
