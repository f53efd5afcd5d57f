//! A bucket: reading objects, asking for them, and writing small ones. OpenDAL knows how.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use draught_digest::Digest;
use draught_oci::Descriptor;
use futures_util::{StreamExt as _, stream};
use opendal::{HttpTransporter, OperationContext, Operator, services};

use super::directory::object_name;
use super::error::ObjectError;
use super::location::{BucketLocation, Service};
use super::transport::{self, Transport};
use super::wire::Wire;
use crate::error::SourceError;
use crate::registry::{Client, check_range, parse_content_range};
use crate::retry;
use crate::settings::Settings;
use crate::stream::BlobStream;

/// Bytes of one request of a stream: after a failure, no more is read again.
const STREAM_BYTES: u64 = 4 << 20;
/// Requests of a stream that are under way: one is read while the next is fetched. A stream holds 12 MiB at most.
const STREAM_REQUESTS: usize = 2;

/// A bucket, and the prefix of our objects in it.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) wire: Arc<Wire>,
    operator: Operator,
    prefix: String,
}

impl Bucket {
    pub(super) fn open(location: &BucketLocation, client: &Client) -> Result<Self, SourceError> {
        let wire = Arc::new(Wire::new(location, client)?);
        let operator = operator(location, &wire)
            .map_err(|error| transport::unwrap(&error, || format!("opening {location}")))?;
        let transport = HttpTransporter::new(Transport(Arc::clone(&wire)));
        let context = OperationContext::new().with_http_transport(transport);
        Ok(Self {
            operator: operator.with_context(context),
            wire,
            prefix: location.prefix.clone(),
        })
    }

    pub(super) fn settings(&self) -> &Settings {
        self.wire.client().settings()
    }

    /// The key of a blob's object.
    pub(super) fn key(&self, digest: &Digest) -> Result<String, SourceError> {
        let name = object_name(digest, || self.wire.label.clone())?;
        Ok(format!("{}{name}", self.prefix))
    }

    /// The size of a blob's object, if there is one.
    pub(super) async fn blob_bytes(&self, digest: &Digest) -> Result<Option<u64>, SourceError> {
        let key = self.key(digest)?;
        let found = retry::insist(self.settings(), || self.stat(&key)).await;
        match found {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn stat(&self, key: &str) -> Result<u64, SourceError> {
        let what = || format!("asking {} for {key}", self.wire.label);
        let found = self.operator.stat(key).await;
        let found = found.map_err(|error| transport::unwrap(&error, what))?;
        Ok(found.content_length())
    }

    /// A range, in one try.
    pub(super) async fn read_range(
        &self,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<Bytes, SourceError> {
        let length = check_range(digest, &range)?;
        if length == 0 {
            return Ok(Bytes::new());
        }
        let key = self.key(digest)?;
        let what = || format!("reading {key} of {}", self.wire.label);
        let read = self.operator.read_with(&key).range(range.clone()).await;
        let error = match read {
            // The transport has seen to it that this is the range.
            Ok(buffer) => return Ok(buffer.to_bytes()),
            Err(error) => transport::unwrap(&error, what),
        };
        let is_outside = match &error {
            SourceError::Status { status, .. } => *status == 416,
            // The object's end cuts it off.
            SourceError::ContentRange { asked, told, .. } => parse_content_range(told)
                .is_some_and(|(start, end)| start == asked.start && end < asked.end),
            _ => false,
        };
        if is_outside {
            let digest = *digest;
            return Err(SourceError::RangeOutside { digest, range });
        }
        Err(error)
    }

    /// A blob from its start to its end. What fails is asked for again, from where it broke.
    pub(super) fn stream(self: Arc<Self>, descriptor: &Descriptor) -> BlobStream {
        let (digest, size) = (descriptor.digest, descriptor.size);
        let starts = stream::unfold(0, move |start| async move {
            let end = size.min(STREAM_BYTES.saturating_add(start));
            (start < size).then_some((start..end, end))
        });
        let pieces = starts
            .map(move |range| {
                let bucket = Arc::clone(&self);
                async move {
                    let read = || bucket.read_range(&digest, range.clone());
                    retry::insist(bucket.settings(), read).await
                }
            })
            .buffered(STREAM_REQUESTS);
        BlobStream::new(digest, size, pieces.boxed())
    }

    /// Writes an object in one request.
    pub(super) async fn put_whole(&self, key: &str, bytes: Bytes) -> Result<(), SourceError> {
        let what = || format!("writing {key} to {}", self.wire.label);
        let write = async || {
            let written = self.operator.write(key, bytes.clone()).await;
            written.map_err(|error| transport::unwrap(&error, what))
        };
        retry::insist(self.settings(), write).await?;
        Ok(())
    }

    /// Checks what a write left.
    pub(super) async fn check_stored(&self, descriptor: &Descriptor) -> Result<(), SourceError> {
        let got = self.blob_bytes(&descriptor.digest).await?.unwrap_or(0);
        if got == descriptor.size {
            return Ok(());
        }
        let expected = descriptor.size;
        let what = format!("writing {} to {}", descriptor.digest, self.wire.label);
        Err(ObjectError::Stored { expected, got }.at(what))
    }
}

/// What makes the requests. They are signed by [`Wire`], for both kinds of requests alike.
fn operator(location: &BucketLocation, wire: &Wire) -> opendal::Result<Operator> {
    match location.service {
        Service::S3 => Operator::new(
            services::S3::default()
                .bucket(&location.bucket)
                .endpoint(&wire.endpoint)
                .region(&wire.region)
                .disable_config_load()
                .disable_ec2_metadata()
                .skip_signature(),
        ),
        Service::Oss => Operator::new(
            services::Oss::default()
                .bucket(&location.bucket)
                .endpoint(&wire.endpoint)
                .addressing_style(if wire.in_path { "path" } else { "virtual" })
                .skip_signature(),
        ),
    }
}
