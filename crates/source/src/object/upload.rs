//! Writing blobs to a bucket. Large ones are sent in parts, and a later try goes on with those that are there.
//!
//! What a kill at any moment leaves: no object, for a service makes one of whole requests only; and, of a large
//! blob, an upload with the parts that had arrived. The next push of the blob asks for the uploads of its
//! key and takes the newest. It reads the blob from its start, as it has to verify it, and sends the parts
//! that the service does not list with the MD5 that they have here. Who may not list uploads starts anew.
//!
//! Uploads that nobody goes on with are ended after the next push of the same blob, and otherwise by the
//! bucket's rules.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read};

use bytes::Bytes;
use draught_digest::Hasher;
use draught_oci::Descriptor;
use futures_util::{TryStreamExt as _, stream};
use md5::{Digest as _, Md5};

use super::bucket::Bucket;
use super::parts::{Part, UploadId};
use crate::error::{Class, SourceError};
use crate::local;
use crate::payload::Payload;
use crate::retry;

/// Bytes of a part; smaller blobs are sent in one request. More than the 5 MiB that S3 asks for, and few
/// enough that one that broke is soon sent again. Of blobs over 80 GB, parts are larger.
pub const PART_BYTES: u64 = 8 << 20;

/// Parts of one blob that are sent at the same time. With the one that is read, a push holds
/// 5 parts in memory: 40 MiB.
pub const PARTS_AT_ONCE: usize = 4;

/// Parts of an upload, at most: both services have this limit.
const PARTS_MAX: u64 = 10_000;

/// Times that an upload is begun anew because it vanished: another push of the same blob ended it.
const UPLOADS_MAX: u32 = 3;

impl Bucket {
    /// Writes a blob that has been measured.
    pub(super) async fn put(
        &self,
        descriptor: &Descriptor,
        payload: &Payload,
    ) -> Result<(), SourceError> {
        let key = self.key(&descriptor.digest)?;
        if descriptor.size <= PART_BYTES {
            let mut reader = Reader::open(descriptor, payload).await?;
            let bytes = match reader.next().await? {
                Some(piece) => piece.bytes,
                None => Bytes::new(),
            };
            // Its end: only there is known that these are the right bytes.
            reader.end().await?;
            self.put_whole(&key, bytes).await?;
            return self.check_stored(descriptor).await;
        }
        let mut uploads = self.known_uploads(&key).await?;
        for again in 1.. {
            let (id, there) = match uploads.pop() {
                Some(id) => {
                    let listed = || self.wire.parts(&key, &id);
                    (id.clone(), retry::insist(self.settings(), listed).await)
                }
                None => {
                    let begin = || self.wire.begin(&key);
                    let id = retry::insist(self.settings(), begin).await?;
                    (id, Ok(Vec::new()))
                }
            };
            let sent = match there {
                Ok(there) => self.send(descriptor, payload, &key, &id, there).await,
                Err(error) => Err(error),
            };
            match sent {
                Ok(()) => break,
                // The upload is gone. If another push has ended it well, all is done.
                Err(error) if error.is_not_found() && again < UPLOADS_MAX => {
                    if self.check_stored(descriptor).await.is_ok() {
                        break;
                    }
                }
                Err(error) => {
                    if error.class() == Class::Corrupt {
                        self.abandon(&key, &[id]).await;
                    }
                    return Err(error);
                }
            }
        }
        self.check_stored(descriptor).await?;
        self.abandon(&key, &uploads).await;
        Ok(())
    }

    /// Uploads of this key that were begun before; none where they can't be listed.
    async fn known_uploads(&self, key: &str) -> Result<Vec<UploadId>, SourceError> {
        let found = retry::insist(self.settings(), || self.wire.uploads(key)).await;
        match found {
            Ok(uploads) => Ok(uploads),
            Err(error) if error.is_unavailable() && !is_not_implemented(&error) => Err(error),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(key, error, "uploads can't be listed: this one begins anew");
                Ok(Vec::new())
            }
        }
    }

    /// Ends uploads that are of no use. If that fails, they only cost what their parts take.
    async fn abandon(&self, key: &str, uploads: &[UploadId]) {
        for id in uploads {
            if let Err(error) = self.wire.abort(key, id).await {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(key, error, "an upload that nobody needs stays");
            }
        }
    }

    /// Sends the parts that are missing, and makes the object.
    async fn send(
        &self,
        descriptor: &Descriptor,
        payload: &Payload,
        key: &str,
        id: &UploadId,
        there: Vec<Part>,
    ) -> Result<(), SourceError> {
        let there: BTreeMap<_, _> = there.into_iter().map(|part| (part.number, part)).collect();
        let reader = Reader::open(descriptor, payload).await?;
        let pieces = stream::try_unfold(reader, |mut reader| async move {
            match reader.next().await? {
                Some(piece) => Ok::<_, SourceError>(Some((piece, reader))),
                None => {
                    reader.end().await?;
                    Ok(None)
                }
            }
        });
        let there = &there;
        let mut parts: Vec<Part> = pieces
            .map_ok(|piece| async move {
                if let Some(part) = there.get(&piece.number).filter(|part| piece.is(part)) {
                    return Ok(part.clone());
                }
                let send = || {
                    self.wire
                        .send_part(key, id, piece.number, piece.bytes.clone())
                };
                retry::insist(self.settings(), send).await
            })
            .try_buffer_unordered(PARTS_AT_ONCE)
            .try_collect()
            .await?;
        parts.sort_by_key(|part| part.number);
        let complete = || self.wire.complete(key, id, &parts);
        retry::insist(self.settings(), complete).await
    }
}

/// Whether a service says that it does not have such a request.
fn is_not_implemented(error: &SourceError) -> bool {
    matches!(error, SourceError::Status { status: 501, .. })
}

/// How long parts are.
fn part_bytes(blob_bytes: u64) -> u64 {
    let least = blob_bytes.div_ceil(PARTS_MAX);
    PART_BYTES.max(least.next_multiple_of(1 << 20))
}

/// A piece of a blob that becomes a part.
#[derive(Debug)]
struct Piece {
    /// From 1.
    number: u32,
    bytes: Bytes,
    md5: String,
}

impl Piece {
    /// Whether a part that the service has is this one.
    fn is(&self, part: &Part) -> bool {
        u64::try_from(self.bytes.len()) == Ok(part.bytes)
            && part.etag.eq_ignore_ascii_case(&self.md5)
    }
}

/// Reads a blob in pieces and verifies it.
struct Reader(Option<State>);

struct State {
    from: Box<dyn Read + Send>,
    hasher: Hasher,
    descriptor: Descriptor,
    read: u64,
    number: u32,
}

impl Reader {
    async fn open(descriptor: &Descriptor, payload: &Payload) -> Result<Self, SourceError> {
        let (descriptor, payload) = (descriptor.clone(), payload.clone());
        let from = local::run(move || payload.into_read()).await?;
        Ok(Self(Some(State {
            from,
            hasher: Hasher::new(descriptor.digest.algorithm()),
            descriptor,
            read: 0,
            number: 0,
        })))
    }

    /// Runs a step where it may block.
    async fn step<T: Send + 'static>(
        &mut self,
        step: impl FnOnce(&mut State) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let mut state = self.0.take().ok_or(SourceError::Cancelled)?;
        let (state, result) = local::run(move || {
            let result = step(&mut state);
            Ok((state, result))
        })
        .await?;
        self.0 = Some(state);
        result
    }

    /// The next piece; none after the last.
    async fn next(&mut self) -> Result<Option<Piece>, SourceError> {
        self.step(State::next).await
    }

    /// Checks that all that was read is the blob, and that there is no more.
    async fn end(mut self) -> Result<(), SourceError> {
        self.step(State::end).await
    }
}

impl State {
    fn next(&mut self) -> Result<Option<Piece>, SourceError> {
        let size = self.descriptor.size;
        let left = size.saturating_sub(self.read).min(part_bytes(size));
        if left == 0 {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(left).unwrap_or(0));
        let got = (&mut self.from).take(left).read_to_end(&mut bytes)?;
        self.read = self.read.saturating_add(u64::try_from(got).unwrap_or(0));
        if u64::try_from(got) != Ok(left) {
            return Err(self.size(self.read));
        }
        self.hasher.update(&bytes);
        self.number = self.number.saturating_add(1);
        let mut md5 = String::new();
        for byte in Md5::digest(&bytes) {
            write!(md5, "{byte:02x}").map_err(|_| io::Error::other("no text"))?;
        }
        Ok(Some(Piece {
            number: self.number,
            bytes: bytes.into(),
            md5,
        }))
    }

    fn end(&mut self) -> Result<(), SourceError> {
        if self.from.read(&mut [0])? != 0 {
            return Err(self.size(self.read.saturating_add(1)));
        }
        let digest = self.descriptor.digest;
        let hasher = std::mem::replace(&mut self.hasher, Hasher::new(digest.algorithm()));
        let got = hasher.finish();
        if got != digest {
            return Err(SourceError::Mismatch {
                digest,
                got,
                bytes: self.read,
            });
        }
        Ok(())
    }

    fn size(&self, got: u64) -> SourceError {
        SourceError::Size {
            digest: self.descriptor.digest,
            expected: self.descriptor.size,
            got,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_blob_has_too_many_parts() {
        for blob_bytes in [0, 1, PART_BYTES, 80 << 30, 5 << 40, (5 << 40) + 1] {
            let bytes = part_bytes(blob_bytes);
            assert!(bytes >= PART_BYTES && blob_bytes.div_ceil(bytes) <= PARTS_MAX);
        }
        assert_eq!(part_bytes(80_000_000_000), PART_BYTES);
    }
}
