//! A repository as a client of the wire sees it.

use std::net::SocketAddr;

use draught_digest::Digest;
use draught_testkit::TestRegistry;
use draught_testkit::http::{Request, Response};
use serde_json::{Value, json};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

#[derive(Debug)]
pub(crate) struct Repository {
    addr: SocketAddr,
    name: String,
}

/// `count` bytes that look like nothing else.
pub(crate) fn bytes(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    })
    .take(count)
    .collect()
}

/// Asserts a status, and the code of an error.
#[track_caller]
pub(crate) fn assert_error(answer: &Response, status: u16, code: &str) {
    let body = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status(), status, "{body}");
    assert_eq!(answer.json()["errors"][0]["code"], code, "{body}");
}

impl Repository {
    pub(crate) fn new(registry: &TestRegistry) -> Self {
        Self {
            addr: registry.direct(),
            name: "some/image".to_owned(),
        }
    }

    pub(crate) fn named(&self, name: &str) -> Self {
        Self {
            addr: self.addr,
            name: name.to_owned(),
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A request for `rest` of this repository.
    pub(crate) fn request(&self, method: &str, rest: &str) -> Request {
        Request::new(method, &format!("/v2/{}/{rest}", self.name))
    }

    pub(crate) async fn send(&self, request: Request) -> Response {
        request.send(self.addr).await.unwrap()
    }

    pub(crate) async fn ask(&self, method: &str, rest: &str) -> Response {
        self.send(self.request(method, rest)).await
    }

    /// Begins an upload: its path, to which a query can be added.
    pub(crate) async fn start_upload(&self) -> String {
        let answer = self.ask("POST", "blobs/uploads/").await;
        assert_eq!(answer.status(), 202);
        location(&answer)
    }

    /// A request to an upload's location, with parameters.
    pub(crate) fn upload(&self, method: &str, location: &str, parameters: &str) -> Request {
        let join = match (parameters, location.contains('?')) {
            ("", _) => "",
            (_, true) => "&",
            (_, false) => "?",
        };
        Request::new(method, &format!("{location}{join}{parameters}"))
    }

    /// Pushes a blob and returns its digest.
    pub(crate) async fn push_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let location = self.start_upload().await;
        let put = self.upload("PUT", &location, &format!("digest={digest}"));
        let answer = self.send(put.body(bytes)).await;
        assert_eq!(answer.status(), 201);
        digest
    }

    /// An image of one layer whose blobs are pushed, but not the image itself.
    pub(crate) async fn image(&self, seed: &str) -> Value {
        let config = format!("{{\"seed\":{seed:?}}}");
        let config_digest = self.push_blob(config.as_bytes()).await;
        let layer_digest = self.push_blob(seed.as_bytes()).await;
        json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": OCI_CONFIG,
                "digest": config_digest.to_string(),
                "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": layer_digest.to_string(),
                "size": seed.len(),
            }],
        })
    }

    pub(crate) async fn put_manifest(&self, reference: &str, manifest: &Value) -> Response {
        let media_type = manifest["mediaType"].as_str().unwrap_or(OCI_MANIFEST);
        let put = self.request("PUT", &format!("manifests/{reference}"));
        let put = put
            .header("Content-Type", media_type)
            .body(manifest.to_string());
        self.send(put).await
    }

    /// Pushes an image with this tag and returns its digest.
    pub(crate) async fn push_image(&self, tag: &str, seed: &str) -> Digest {
        let manifest = self.image(seed).await;
        let answer = self.put_manifest(tag, &manifest).await;
        assert_eq!(
            answer.status(),
            201,
            "{}",
            String::from_utf8_lossy(&answer.body)
        );
        Digest::sha256(manifest.to_string().as_bytes())
    }
}

/// The path of a `Location`, whether it was given with or without the host.
#[track_caller]
pub(crate) fn location(answer: &Response) -> String {
    let location = answer.header("location").unwrap();
    match location.strip_prefix("http://") {
        Some(rest) => rest[rest.find('/').unwrap()..].to_owned(),
        None => location.to_owned(),
    }
}
