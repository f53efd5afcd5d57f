//! The requests of an upload in parts: S3 and OSS have the same.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ETAG, HeaderMap};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::ObjectError;
use super::wire::{Call, Wire};
use crate::error::SourceError;
use crate::http::Lane;
use crate::settings::{LIST_BYTES_MAX, LIST_PAGES_MAX};

/// An upload that was begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UploadId(String);

/// A part that the service has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// From 1.
    pub(super) number: u32,
    /// Without quotes: in most buckets the MD5 of its bytes.
    pub(super) etag: String,
    pub(super) bytes: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireBegun {
    upload_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireUploads {
    #[serde(rename = "Upload", default)]
    uploads: Vec<WireUpload>,
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_key_marker: String,
    #[serde(default)]
    next_upload_id_marker: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireUpload {
    key: String,
    upload_id: String,
    #[serde(default)]
    initiated: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireParts {
    #[serde(rename = "Part", default)]
    parts: Vec<WirePart>,
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_part_number_marker: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WirePart {
    part_number: u32,
    #[serde(rename = "ETag")]
    etag: String,
    size: u64,
}

#[derive(Deserialize)]
struct WireEnded {
    /// Of an error, which comes with a status that says all went well.
    #[serde(rename = "Code")]
    code: Option<String>,
}

fn unquoted(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

impl Wire {
    async fn ask(
        &self,
        method: Method,
        uri: String,
        body: Bytes,
        lane: Lane,
    ) -> Result<(HeaderMap, Bytes), SourceError> {
        let call = Call {
            method,
            uri,
            headers: HeaderMap::new(),
            body,
            lane,
        };
        let answer = self.send(call).await?;
        let headers = answer.headers().clone();
        Ok((headers, answer.bytes("list", LIST_BYTES_MAX).await?))
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, SourceError> {
        let text = String::from_utf8_lossy(body);
        // Spaces in front keep a connection open while parts are put together.
        quick_xml::de::from_str(text.trim_start()).map_err(|_| {
            let what = "it is not the XML that was expected";
            ObjectError::Answer { what }.at(format!("asking {}", self.label))
        })
    }

    /// The uploads of a key that are under way, the newest last.
    pub(super) async fn uploads(&self, key: &str) -> Result<Vec<UploadId>, SourceError> {
        let mut found: Vec<WireUpload> = Vec::new();
        let (mut key_marker, mut id_marker) = (String::new(), String::new());
        for _ in 0..LIST_PAGES_MAX {
            let mut query = vec![("uploads", ""), ("prefix", key)];
            if !key_marker.is_empty() {
                query.push(("key-marker", &key_marker));
                query.push(("upload-id-marker", &id_marker));
            }
            let uri = self.uri("", &query);
            let asked = self.ask(Method::GET, uri, Bytes::new(), Lane::Request);
            let page: WireUploads = self.parse(&asked.await?.1)?;
            found.extend(page.uploads.into_iter().filter(|one| one.key == key));
            if !page.is_truncated {
                break;
            }
            (key_marker, id_marker) = (page.next_key_marker, page.next_upload_id_marker);
        }
        // Times in one format, which sort as text.
        found.sort_by(|one, other| one.initiated.cmp(&other.initiated));
        let found = found.into_iter();
        Ok(found.map(|upload| UploadId(upload.upload_id)).collect())
    }

    /// Begins an upload.
    pub(super) async fn begin(&self, key: &str) -> Result<UploadId, SourceError> {
        let uri = self.uri(key, &[("uploads", "")]);
        let (_, body) = self
            .ask(Method::POST, uri, Bytes::new(), Lane::Request)
            .await?;
        let begun: WireBegun = self.parse(&body)?;
        Ok(UploadId(begun.upload_id))
    }

    /// The parts that an upload has.
    pub(super) async fn parts(&self, key: &str, id: &UploadId) -> Result<Vec<Part>, SourceError> {
        let mut parts = Vec::new();
        let mut marker = String::new();
        for _ in 0..LIST_PAGES_MAX {
            let mut query = vec![("uploadId", id.0.as_str())];
            if !marker.is_empty() {
                query.push(("part-number-marker", &marker));
            }
            let uri = self.uri(key, &query);
            let asked = self.ask(Method::GET, uri, Bytes::new(), Lane::Request);
            let page: WireParts = self.parse(&asked.await?.1)?;
            parts.extend(page.parts.into_iter().map(|part| Part {
                number: part.part_number,
                etag: unquoted(&part.etag),
                bytes: part.size,
            }));
            if !page.is_truncated {
                break;
            }
            marker = page.next_part_number_marker;
        }
        Ok(parts)
    }

    /// Sends a part.
    pub(super) async fn send_part(
        &self,
        key: &str,
        id: &UploadId,
        number: u32,
        body: Bytes,
    ) -> Result<Part, SourceError> {
        let bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
        let text = number.to_string();
        let uri = self.uri(key, &[("partNumber", &text), ("uploadId", &id.0)]);
        let (headers, _) = self.ask(Method::PUT, uri, body, Lane::Stream).await?;
        let etag = headers.get(ETAG).and_then(|value| value.to_str().ok());
        let etag = etag.ok_or_else(|| {
            let what = "a part was taken without an ETag";
            ObjectError::Answer { what }.at(format!("asking {}", self.label))
        })?;
        Ok(Part {
            number,
            etag: unquoted(etag),
            bytes,
        })
    }

    /// Makes an object of an upload's parts, which are in order.
    pub(super) async fn complete(
        &self,
        key: &str,
        id: &UploadId,
        parts: &[Part],
    ) -> Result<(), SourceError> {
        let mut body = String::from("<CompleteMultipartUpload>");
        for part in parts {
            let etag = quick_xml::escape::escape(&part.etag);
            body.push_str(&format!(
                "<Part><PartNumber>{}</PartNumber><ETag>\"{etag}\"</ETag></Part>",
                part.number
            ));
        }
        body.push_str("</CompleteMultipartUpload>");
        let uri = self.uri(key, &[("uploadId", &id.0)]);
        // Some services put the parts together before they answer.
        let (_, body) = self
            .ask(Method::POST, uri, body.into(), Lane::Stream)
            .await?;
        let ended: WireEnded = self.parse(&body)?;
        if ended.code.is_some() {
            let what = "the parts could not be put together";
            return Err(SourceError::Backend {
                what: format!("asking {}", self.label),
                class: crate::Class::Unavailable { retry_after: None },
                source: Box::new(ObjectError::Answer { what }),
            });
        }
        Ok(())
    }

    /// Ends an upload without an object.
    pub(super) async fn abort(&self, key: &str, id: &UploadId) -> Result<(), SourceError> {
        let uri = self.uri(key, &[("uploadId", &id.0)]);
        self.ask(Method::DELETE, uri, Bytes::new(), Lane::Request)
            .await?;
        Ok(())
    }
}
