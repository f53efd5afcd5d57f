//! Answers, and the headers that all of them share.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use draught_digest::Digest;

/// The digest of what was answered or stored.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// The name of an upload, for clients that do not read it from the location.
pub(super) const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
/// Says that `subject` was understood, so that no tag is needed to find the referrer.
pub(super) const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// Says which filters were applied to a referrers list.
pub(super) const OCI_FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");
/// How docker's clients tell a registry from any other server.
pub(super) const API_VERSION: HeaderName =
    HeaderName::from_static("docker-distribution-api-version");

/// An answer under construction.
pub(super) struct Answer(Response<Body>);

impl Answer {
    pub(super) fn new(status: StatusCode) -> Self {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        Self(response)
    }

    /// Adds a header; of our own making, so that one that is none can only be left out.
    pub(super) fn header(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.0.headers_mut().insert(name, value);
        }
        self
    }

    pub(super) fn digest(self, digest: &Digest) -> Self {
        self.header(CONTENT_DIGEST, digest.to_string())
    }

    pub(super) fn etag(self, digest: &Digest) -> Self {
        self.header(header::ETAG, format!("\"{digest}\""))
    }

    pub(super) fn body(mut self, content_type: &str, body: Body) -> Response<Body> {
        *self.0.body_mut() = body;
        self.header(header::CONTENT_TYPE, content_type).finish()
    }

    pub(super) fn json(self, document: &serde_json::Value) -> Response<Body> {
        self.body("application/json", Body::from(document.to_string()))
    }

    pub(super) fn finish(self) -> Response<Body> {
        self.0
    }
}
