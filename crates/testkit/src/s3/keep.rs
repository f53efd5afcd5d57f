//! Objects and uploads, in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use md5::{Digest as _, Md5};
use parking_lot::Mutex;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput, ETag,
    GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, ListMultipartUploadsInput,
    ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput, MultipartUpload, Part,
    PutObjectInput, PutObjectOutput, StreamingBlob, Timestamp, UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};

/// Bytes that every part but the last must have: what Amazon wants.
const PART_BYTES_MIN: usize = 5 << 20;
/// Parts or uploads of one page of a list: few, so that more than one page is read.
const PAGE: usize = 2;

/// An object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) bytes: Bytes,
    etag: String,
}

/// An upload that is under way.
#[derive(Debug)]
pub(super) struct Upload {
    key: String,
    initiated: SystemTime,
    pub(super) parts: BTreeMap<i32, Bytes>,
}

/// All that the server has.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) objects: BTreeMap<String, Object>,
    pub(super) uploads: BTreeMap<String, Upload>,
    pub(super) writes: usize,
    pub(super) hides_uploads: bool,
    begun: u64,
}

impl Kept {
    pub(super) fn put(&mut self, key: &str, bytes: Bytes) -> String {
        let etag = hex_md5(&bytes);
        let object = Object {
            bytes,
            etag: etag.clone(),
        };
        self.objects.insert(key.to_owned(), object);
        etag
    }
}

fn hex_md5(bytes: &[u8]) -> String {
    let sum = Md5::digest(bytes);
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The service.
#[derive(Debug)]
pub(super) struct Keep {
    bucket: &'static str,
    kept: Arc<Mutex<Kept>>,
}

impl Keep {
    pub(super) fn new(bucket: &'static str, kept: Arc<Mutex<Kept>>) -> Self {
        Self { bucket, kept }
    }

    fn check_bucket(&self, bucket: &str) -> S3Result<()> {
        match bucket == self.bucket {
            true => Ok(()),
            false => Err(s3_error!(NoSuchBucket)),
        }
    }
}

/// A whole body, if it has the checksum that came with it.
async fn body(blob: Option<StreamingBlob>, md5: Option<&str>) -> S3Result<Bytes> {
    let mut all = BytesMut::new();
    if let Some(mut blob) = blob {
        while let Some(piece) = blob.next().await {
            all.extend_from_slice(&piece.map_err(|_| s3_error!(IncompleteBody))?);
        }
    }
    let has = STANDARD.encode(Md5::digest(&all));
    match md5 {
        Some(md5) if md5 != has => Err(s3_error!(BadDigest)),
        _ => Ok(all.freeze()),
    }
}

fn length(bytes: &[u8]) -> Option<i64> {
    i64::try_from(bytes.len()).ok()
}

fn no_upload() -> S3Error {
    s3_error!(NoSuchUpload)
}

#[async_trait::async_trait]
impl S3 for Keep {
    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        self.check_bucket(&request.input.bucket)?;
        let kept = self.kept.lock();
        let object = kept.objects.get(&request.input.key);
        let object = object.ok_or_else(|| s3_error!(NoSuchKey))?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: length(&object.bytes),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            ..Default::default()
        }))
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        self.check_bucket(&request.input.bucket)?;
        let kept = self.kept.lock();
        let object = kept.objects.get(&request.input.key);
        let object = object.ok_or_else(|| s3_error!(NoSuchKey))?;
        let all = object.bytes.len() as u64;
        let (mut bytes, mut content_range) = (object.bytes.clone(), None);
        if let Some(range) = &request.input.range {
            let range = range.check(all).map_err(|_| s3_error!(InvalidRange))?;
            content_range = Some(format!("bytes {}-{}/{all}", range.start, range.end - 1));
            let at = |offset: u64| usize::try_from(offset).unwrap();
            bytes = bytes.slice(at(range.start)..at(range.end));
        }
        Ok(S3Response::new(GetObjectOutput {
            content_length: length(&bytes),
            content_range,
            e_tag: Some(ETag::Strong(object.etag.clone())),
            body: Some(StreamingBlob::from(s3s::Body::from(bytes))),
            ..Default::default()
        }))
    }

    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        self.check_bucket(&input.bucket)?;
        let bytes = body(input.body, input.content_md5.as_deref()).await?;
        let mut kept = self.kept.lock();
        kept.writes += 1;
        let etag = kept.put(&input.key, bytes);
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(etag)),
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        self.check_bucket(&input.bucket)?;
        let mut kept = self.kept.lock();
        kept.begun += 1;
        // With what has to be escaped in a query: real ones have such.
        let id = format!("upload+{}/=&", kept.begun);
        let upload = Upload {
            key: input.key,
            initiated: SystemTime::UNIX_EPOCH + Duration::from_secs(kept.begun),
            parts: BTreeMap::new(),
        };
        kept.uploads.insert(id.clone(), upload);
        Ok(S3Response::new(CreateMultipartUploadOutput {
            upload_id: Some(id),
            ..Default::default()
        }))
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        self.check_bucket(&input.bucket)?;
        let bytes = body(input.body, input.content_md5.as_deref()).await?;
        let mut kept = self.kept.lock();
        kept.writes += 1;
        let upload = kept.uploads.get_mut(&input.upload_id);
        let etag = hex_md5(&bytes);
        upload
            .filter(|upload| upload.key == input.key)
            .ok_or_else(no_upload)?
            .parts
            .insert(input.part_number, bytes);
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(ETag::Strong(etag)),
            ..Default::default()
        }))
    }

    async fn list_parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let input = request.input;
        self.check_bucket(&input.bucket)?;
        let kept = self.kept.lock();
        let upload = kept.uploads.get(&input.upload_id).ok_or_else(no_upload)?;
        let after = input.part_number_marker.unwrap_or(0);
        let left = upload.parts.range(after + 1..);
        let parts: Vec<_> = left
            .clone()
            .take(PAGE)
            .map(|(number, bytes)| Part {
                part_number: Some(*number),
                size: length(bytes),
                e_tag: Some(ETag::Strong(hex_md5(bytes))),
                ..Default::default()
            })
            .collect();
        Ok(S3Response::new(ListPartsOutput {
            is_truncated: Some(left.count() > PAGE),
            next_part_number_marker: parts.last().and_then(|part| part.part_number),
            parts: Some(parts),
            ..Default::default()
        }))
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = request.input;
        self.check_bucket(&input.bucket)?;
        let kept = self.kept.lock();
        if kept.hides_uploads {
            return Err(s3_error!(AccessDenied));
        }
        let prefix = input.prefix.unwrap_or_default();
        let after = (
            input.key_marker.unwrap_or_default(),
            input.upload_id_marker.unwrap_or_default(),
        );
        let uploads = kept.uploads.iter();
        let mut uploads: Vec<_> = uploads
            .filter(|(_, upload)| upload.key.starts_with(&prefix))
            .filter(|(id, upload)| (upload.key.as_str(), id.as_str()) > (&*after.0, &*after.1))
            .map(|(id, upload)| MultipartUpload {
                key: Some(upload.key.clone()),
                upload_id: Some(id.clone()),
                initiated: Some(Timestamp::from(upload.initiated)),
                ..Default::default()
            })
            .collect();
        uploads
            .sort_by(|one, other| (&one.key, &one.upload_id).cmp(&(&other.key, &other.upload_id)));
        let is_truncated = uploads.len() > PAGE;
        uploads.truncate(PAGE);
        let last = uploads.last().filter(|_| is_truncated);
        Ok(S3Response::new(ListMultipartUploadsOutput {
            is_truncated: Some(is_truncated),
            next_key_marker: last.and_then(|upload| upload.key.clone()),
            next_upload_id_marker: last.and_then(|upload| upload.upload_id.clone()),
            uploads: Some(uploads),
            ..Default::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        self.check_bucket(&input.bucket)?;
        let mut kept = self.kept.lock();
        let upload = kept.uploads.get(&input.upload_id).ok_or_else(no_upload)?;
        let wanted = input.multipart_upload.and_then(|upload| upload.parts);
        let wanted = wanted.ok_or_else(|| s3_error!(MalformedXML))?;
        let mut all = BytesMut::new();
        let mut before = 0;
        for (index, part) in wanted.iter().enumerate() {
            let number = part.part_number.unwrap_or(0);
            if number <= before {
                return Err(s3_error!(InvalidPartOrder));
            }
            before = number;
            let bytes = upload.parts.get(&number);
            let bytes = bytes.ok_or_else(|| s3_error!(InvalidPart))?;
            if part.e_tag.as_ref().map(ETag::value) != Some(&hex_md5(bytes)) {
                return Err(s3_error!(InvalidPart));
            }
            if bytes.len() < PART_BYTES_MIN && index + 1 < wanted.len() {
                return Err(s3_error!(EntityTooSmall));
            }
            all.extend_from_slice(bytes);
        }
        kept.uploads.remove(&input.upload_id);
        let etag = kept.put(&input.key, all.freeze());
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            e_tag: Some(ETag::Strong(etag)),
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.check_bucket(&request.input.bucket)?;
        let removed = self.kept.lock().uploads.remove(&request.input.upload_id);
        removed.ok_or_else(no_upload)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}
