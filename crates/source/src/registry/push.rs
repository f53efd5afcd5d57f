//! Writing blobs to a registry.

use bytes::Bytes;
use draught_digest::Digest;
use draught_oci::Descriptor;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode, Url};

use super::client::RegistryRepository;
use crate::auth::Scope;
use crate::error::SourceError;
use crate::http::{Answer, Body, Lane, Request};
use crate::payload::{Payload, Pushed};
use crate::retry;

/// Bytes per request where a registry finds one request for all too large.
const CHUNK_BYTES: u64 = 64 << 20;

/// How an upload began.
enum Upload {
    /// The blob is there already, from another repository.
    Mounted,
    /// Bytes go there.
    Open(Url),
}

impl RegistryRepository {
    /// Makes a blob be there: not at all if it is, by a mount from one of `mount_from` (repositories of the
    /// same registry) if that works, else by sending it.
    ///
    /// # Errors
    /// Of every class. [`SourceError::Size`] when the payload has another length than the descriptor.
    pub async fn push_blob(
        &self,
        descriptor: &Descriptor,
        payload: &Payload,
        mount_from: &[String],
    ) -> Result<Pushed, SourceError> {
        let got = payload.len().await?;
        if got != descriptor.size {
            return Err(SourceError::Size {
                digest: descriptor.digest,
                expected: descriptor.size,
                got,
            });
        }
        if self.has_blob(&descriptor.digest).await? {
            return Ok(Pushed::Existed);
        }
        for from in mount_from {
            if self.mount_blob(&descriptor.digest, from).await? {
                return Ok(Pushed::Mounted { from: from.clone() });
            }
        }
        let whole = self.settings().upload_chunk_bytes.is_none();
        let sent = retry::insist(self.settings(), || self.upload(descriptor, payload, whole)).await;
        match sent {
            Err(SourceError::Status { status: 413, .. }) if whole => {
                retry::insist(self.settings(), || self.upload(descriptor, payload, false)).await?;
            }
            other => other?,
        }
        Ok(Pushed::Written)
    }

    /// Makes a blob of another repository of this registry be in this one too, without moving a byte.
    /// `false` when the registry won't: then it has to be sent.
    ///
    /// # Errors
    /// Of every class.
    pub async fn mount_blob(&self, digest: &Digest, from: &str) -> Result<bool, SourceError> {
        if from == self.name() {
            return Ok(false);
        }
        let scope = self.scope("pull,push", Some(from));
        let begun =
            retry::insist(self.settings(), || self.begin(&scope, Some((digest, from)))).await;
        match begun {
            Ok(Upload::Mounted) => Ok(true),
            Ok(Upload::Open(url)) => {
                // An upload that nobody ends stays around for days. If ending it fails, that is no loss of ours.
                let cancel = Request::new(Method::DELETE, url);
                if let Ok(sent) = self.send(&cancel, &self.push()).await {
                    sent.answer.discard().await;
                }
                Ok(false)
            }
            // Who may not read the other repository may still write this one.
            Err(error) if !error.is_unavailable() => {
                tracing::debug!(from, error = &error as &dyn std::error::Error, "no mount");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Opens an upload, or mounts.
    async fn begin(
        &self,
        scope: &Scope,
        mount: Option<(&Digest, &str)>,
    ) -> Result<Upload, SourceError> {
        let mut url = self.url("blobs/uploads/")?;
        if let Some((digest, from)) = mount {
            url.query_pairs_mut()
                .append_pair("mount", &digest.to_string())
                .append_pair("from", from);
        }
        let request = Request::new(Method::POST, url);
        let expected: &[StatusCode] = match mount {
            Some(_) => &[StatusCode::CREATED, StatusCode::ACCEPTED],
            None => &[StatusCode::ACCEPTED],
        };
        let answer = self.expect(&request, scope, expected).await?;
        if answer.status() == StatusCode::CREATED {
            answer.discard().await;
            return Ok(Upload::Mounted);
        }
        let url = self.next_url(&request.url, &answer)?;
        answer.discard().await;
        Ok(Upload::Open(url))
    }

    /// Where an upload goes on.
    fn next_url(&self, from: &Url, answer: &Answer) -> Result<Url, SourceError> {
        let location = answer
            .header(LOCATION.as_str())
            .ok_or_else(|| self.senseless("upload without a location"))?;
        self.authority().target(from, location)
    }

    /// Sends a blob: in one request, or in several.
    async fn upload(
        &self,
        descriptor: &Descriptor,
        payload: &Payload,
        whole: bool,
    ) -> Result<(), SourceError> {
        let Upload::Open(mut url) = self.begin(&self.push(), None).await? else {
            return Err(self.senseless("mount that was not asked for"));
        };
        let mut last = payload.part(0..descriptor.size);
        if !whole {
            url = self.send_chunks(url, descriptor, payload).await?;
            last = Body::Bytes(Bytes::new());
        }
        url.query_pairs_mut()
            .append_pair("digest", &descriptor.digest.to_string());
        let request = Request::new(Method::PUT, url)
            .with_header(CONTENT_TYPE.as_str(), octets())
            .with_body(last)
            .in_lane(Lane::Stream);
        let answer = self
            .expect(&request, &self.push(), &[StatusCode::CREATED])
            .await?;
        answer.discard().await;
        Ok(())
    }

    /// Sends a blob's bytes in several requests; gives the URL that ends the upload.
    async fn send_chunks(
        &self,
        mut url: Url,
        descriptor: &Descriptor,
        payload: &Payload,
    ) -> Result<Url, SourceError> {
        let chunk = self
            .settings()
            .upload_chunk_bytes
            .unwrap_or(CHUNK_BYTES)
            .max(1);
        let mut start = 0;
        while start < descriptor.size {
            let end = start.saturating_add(chunk).min(descriptor.size);
            let range = HeaderValue::from_str(&format!("{start}-{}", end.saturating_sub(1)))
                .map_err(|_| self.senseless("range makes no header"))?;
            let request = Request::new(Method::PATCH, url)
                .with_header(CONTENT_TYPE.as_str(), octets())
                .with_header(CONTENT_RANGE.as_str(), range)
                .with_body(payload.part(start..end))
                .in_lane(Lane::Stream);
            let answer = self
                .expect(&request, &self.push(), &[StatusCode::ACCEPTED])
                .await?;
            url = self.next_url(&request.url, &answer)?;
            answer.discard().await;
            start = end;
        }
        Ok(url)
    }
}

/// The media type of an upload.
fn octets() -> HeaderValue {
    HeaderValue::from_static("application/octet-stream")
}
