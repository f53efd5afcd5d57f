//! Requests to a bucket: each is signed, sent once, and its error understood.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use draught_digest::Digest;
use http::HeaderName;
use md5::{Digest as _, Md5};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::error::ObjectError;
use super::location::{BucketLocation, Service};
use super::sign::Signer;
use crate::error::{Class, SourceError};
use crate::http::{Answer, Body, Lane, Request, url_host};
use crate::registry::Client;
use crate::settings::is_loopback;

/// Amazon's endpoint where none is named.
const S3_HOST: &str = "amazonaws.com";
/// The region where a service of one's own is named and no region is: what such services expect.
const S3_REGION: &str = "us-east-1";
/// Characters of an error's code: the longest that is known has some 40.
const CODE_CHARS_MAX: usize = 64;

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// One request, before it is signed.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) uri: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) lane: Lane,
}

/// The way to a bucket.
#[derive(Debug)]
pub(super) struct Wire {
    client: Client,
    signer: Signer,
    service: Service,
    /// The location, for people.
    pub(super) label: String,
    /// Scheme, host and port, without a bucket.
    pub(super) endpoint: String,
    pub(super) region: String,
    /// The bucket's own URL, with a `/` at its end.
    base: String,
    /// Whether the bucket's name is in the path.
    pub(super) in_path: bool,
}

impl Wire {
    pub(super) fn new(bucket: &BucketLocation, client: &Client) -> Result<Self, SourceError> {
        let label = bucket.to_string();
        let wrong = |error: ObjectError| error.at(format!("opening {label}"));
        let region = region(bucket, client);
        let signer = Signer::new(bucket, region.as_deref(), client).map_err(wrong)?;
        let region = region.unwrap_or_default();
        let endpoint = match &bucket.endpoint {
            Some(endpoint) => endpoint.clone(),
            None if region.starts_with("cn-") => format!("https://s3.{region}.{S3_HOST}.cn"),
            None => format!("https://s3.{region}.{S3_HOST}"),
        };
        let no_url = |_| wrong(ObjectError::Answer { what: "no URL" });
        let url = Url::parse(&endpoint).map_err(no_url)?;
        let host = url_host(&url);
        if url.scheme() == "http" && !client.settings().is_plain_http(&host) {
            return Err(wrong(ObjectError::PlainHttp { host }));
        }
        // OSS wants the bucket's name in front of its own, which an address can't have. Of S3, all have both.
        let bare = url.host_str().unwrap_or_default();
        let is_address =
            is_loopback(&host) || bare.starts_with('[') || bare.parse::<IpAddr>().is_ok();
        let in_path = bucket.service == Service::S3 || is_address;
        let name = &bucket.bucket;
        let base = if in_path {
            format!("{endpoint}/{name}/")
        } else {
            format!("{}://{name}.{host}/", url.scheme())
        };
        Ok(Self {
            client: client.clone(),
            signer,
            service: bucket.service,
            label,
            endpoint,
            region,
            base,
            in_path,
        })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The URL of an object, or of the bucket where `key` is empty, with a query.
    pub(super) fn uri(&self, key: &str, query: &[(&str, &str)]) -> String {
        let mut uri = format!("{}{key}", self.base);
        for (index, (name, value)) in query.iter().enumerate() {
            uri.push(if index == 0 { '?' } else { '&' });
            uri.push_str(name);
            if !value.is_empty() {
                uri.push('=');
                escape(value, &mut uri);
            }
        }
        uri
    }

    /// Sends a request, once. A body is named by its checksums, so that the service finds out when it is
    /// not what was sent.
    ///
    /// # Errors
    /// When no answer comes, and for answers that are errors.
    pub(super) async fn send(&self, call: Call) -> Result<Answer, SourceError> {
        let request = self.signed(call).await?;
        let is_signed = request.headers.contains_key(AUTHORIZATION);
        let answer = self.client.authority().send_straight(&request).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let error = answer.into_error_told(told).await;
        Err(self.classed(error, is_signed))
    }

    async fn signed(&self, call: Call) -> Result<Request, SourceError> {
        let failed = |error: ObjectError| error.at(format!("asking {}", self.label));
        let no_request = |_| failed(ObjectError::Answer { what: "no request" });
        let no_header = |_| failed(ObjectError::Answer { what: "no header" });
        let mut request = http::Request::new(());
        *request.method_mut() = call.method;
        *request.uri_mut() = call.uri.parse().map_err(no_request)?;
        *request.headers_mut() = call.headers;
        let (mut parts, ()) = request.into_parts();
        // It is written anew, for the body that is sent.
        parts.headers.remove(CONTENT_LENGTH);
        if !call.body.is_empty() {
            let sum = STANDARD.encode(Md5::digest(&call.body));
            let sum = HeaderValue::from_str(&sum).map_err(no_header)?;
            parts.headers.insert(CONTENT_MD5, sum);
        }
        if self.service == Service::S3 {
            let sum = Digest::sha256(&call.body).hex();
            let sum = HeaderValue::from_str(&sum).map_err(no_header)?;
            parts.headers.insert(CONTENT_SHA256, sum);
        }
        self.signer.sign(&mut parts).await.map_err(failed)?;
        parts.headers.remove(HOST);
        let no_url = |_| failed(ObjectError::Answer { what: "no URL" });
        let url = Url::parse(&parts.uri.to_string()).map_err(no_url)?;
        let mut request = Request::new(parts.method, url).in_lane(call.lane);
        request.headers = parts.headers;
        if !call.body.is_empty() {
            request.body = Body::Bytes(call.body);
        }
        Ok(request)
    }

    /// An error as what it means: services say some things with a status that means another.
    fn classed(&self, error: SourceError, is_signed: bool) -> SourceError {
        let SourceError::Status { status, detail, .. } = &error else {
            return error;
        };
        let what = format!("asking {}", self.label);
        let code = detail.strip_prefix(": ").unwrap_or_default();
        match (*status, code) {
            (401 | 403, _) if !is_signed => ObjectError::NoCredentials {
                hint: match self.service {
                    Service::S3 => {
                        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write ~/.aws/credentials"
                    }
                    Service::Oss => {
                        "set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET"
                    }
                },
                source: Box::new(error),
            }
            .at(what),
            (400, "ExpiredToken" | "InvalidToken" | "AuthorizationHeaderMalformed") => {
                ObjectError::Rejected(Box::new(error)).at(what)
            }
            // The connection was too slow, or what arrived is not what was sent.
            (400, "RequestTimeout" | "BadDigest" | "IncompleteBody" | "InvalidDigest")
            | (400, "XAmzContentSHA256Mismatch")
            | (409, "OperationAborted") => SourceError::Backend {
                what,
                class: Class::Unavailable { retry_after: None },
                source: Box::new(error),
            },
            _ => error,
        }
    }
}

/// The region of a bucket, if it has to be known.
fn region(bucket: &BucketLocation, client: &Client) -> Option<String> {
    let credentials = &client.settings().object_credentials;
    let named = bucket.region.clone();
    match bucket.service {
        Service::S3 => {
            let found = || credentials.variable(&["AWS_REGION", "AWS_DEFAULT_REGION"]);
            let own = || bucket.endpoint.as_ref().map(|_| S3_REGION.to_owned());
            named.or_else(|| found().map(str::to_owned)).or_else(own)
        }
        Service::Oss => named.or_else(|| oss_region(bucket.endpoint.as_deref()?)),
    }
}

/// The region that an endpoint of Alibaba's has in its name: `oss-REGION[-internal].aliyuncs.com`.
fn oss_region(endpoint: &str) -> Option<String> {
    let (_, host) = endpoint.split_once("://")?;
    let name = host.strip_suffix(".aliyuncs.com")?.strip_prefix("oss-")?;
    let region = name.strip_suffix("-internal").unwrap_or(name);
    let is_region = !region.contains('.') && !region.starts_with("accelerate");
    is_region.then(|| region.to_owned())
}

/// Writes a query's value so that it has to be escaped nowhere else.
fn escape(value: &str, out: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[derive(Deserialize)]
struct WireError {
    #[serde(rename = "Code", default)]
    code: String,
}

/// The code of an error. Its other words repeat parts of the request, such as its signature.
fn told(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let Ok(error) = quick_xml::de::from_str::<WireError>(&text) else {
        return String::new();
    };
    let is_code = !error.code.is_empty()
        && error.code.len() <= CODE_CHARS_MAX
        && error.code.chars().all(|c| c.is_ascii_alphanumeric());
    match is_code {
        true => format!(": {}", error.code),
        false => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_error_only_its_code_is_told() {
        for (body, expect) in [
            (
                "<Error><Code>NoSuchKey</Code><Message>x</Message></Error>",
                ": NoSuchKey",
            ),
            (
                "<?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch</Code>\
                 <AWSAccessKeyId>AKIA</AWSAccessKeyId><StringToSign>secret</StringToSign></Error>",
                ": SignatureDoesNotMatch",
            ),
            ("<Error><Code>a signature: abc</Code></Error>", ""),
            ("<html>", ""),
            ("", ""),
        ] {
            assert_eq!(told(body.as_bytes()), expect, "{body}");
        }
    }

    #[test]
    fn queries_are_escaped_once() {
        let mut text = String::new();
        escape("a+b/c=d e~ü", &mut text);
        assert_eq!(text, "a%2Bb%2Fc%3Dd%20e~%C3%BC");
    }

    #[test]
    fn endpoints_of_oss_name_their_region() {
        for (endpoint, expect) in [
            ("https://oss-cn-hangzhou.aliyuncs.com", Some("cn-hangzhou")),
            (
                "https://oss-cn-beijing-internal.aliyuncs.com",
                Some("cn-beijing"),
            ),
            ("https://oss-us-west-1.aliyuncs.com", Some("us-west-1")),
            ("https://oss-accelerate.aliyuncs.com", None),
            ("https://s3.example.com", None),
        ] {
            assert_eq!(oss_region(endpoint).as_deref(), expect, "{endpoint}");
        }
    }
}
