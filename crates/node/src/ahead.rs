//! Small images, fetched whole while their metadata is still asked for.
//!
//! What is smaller than what a line delivers in the time of one question is not worth a second question: by the time
//! the metadata has been read, everything else is there too.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use draught_digest::Digest;
use draught_oci::Descriptor;
use draught_source::{Blobs, Source, SourceError};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;

/// Stored bytes of all blobs of an image for which this is done: 40 ms at 100 MB/s.
const BYTES_MAX: u64 = 4 << 20;
/// The same of all images that are kept at a time.
const ALL_BYTES_MAX: u64 = 64 << 20;
/// How long blobs are kept in memory: until an image that was just pulled is mounted and filled.
const KEPT: Duration = Duration::from_secs(10);

/// How long a part waits for the whole: what takes longer has gone wrong.
const WAIT_MAX: Duration = Duration::from_secs(2);

type Whole = Shared<BoxFuture<'static, Option<Bytes>>>;

/// What was fetched ahead, by the name of its place: whoever may not read there gets nothing of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fetched(Arc<Mutex<Kept>>);

type Key = (String, Digest);

#[derive(Debug, Default)]
struct Kept {
    blobs: HashMap<Key, (u64, Whole)>,
    /// Of all of them together.
    bytes: u64,
}

impl Fetched {
    fn get(&self, key: &Key) -> Option<Whole> {
        let kept = self.0.lock();
        kept.blobs.get(key).map(|(_, whole)| whole.clone())
    }

    /// Keeps a blob of so many bytes that `begin` begins to fetch, if it is not there and there is room.
    fn put(&self, key: &Key, bytes: u64, begin: impl FnOnce() -> Whole) -> bool {
        let mut kept = self.0.lock();
        let all = kept.bytes.saturating_add(bytes);
        if all > ALL_BYTES_MAX || kept.blobs.contains_key(key) {
            return false;
        }
        kept.bytes = all;
        kept.blobs.insert(key.clone(), (bytes, begin()));
        true
    }

    fn forget(&self, key: &Key) {
        let mut kept = self.0.lock();
        if let Some((bytes, _)) = kept.blobs.remove(key) {
            kept.bytes = kept.bytes.saturating_sub(bytes);
        }
    }
}

/// Blobs of an image, some of them fetched ahead. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Ahead {
    blobs: Blobs,
    label: String,
    fetched: Fetched,
}

impl Ahead {
    /// These blobs, and what was fetched of them.
    pub(crate) fn new(blobs: Blobs, fetched: Fetched) -> Self {
        Self {
            label: blobs.label(),
            blobs,
            fetched,
        }
    }

    fn key(&self, blob: &Digest) -> Key {
        (self.label.clone(), *blob)
    }

    /// Where the blobs are.
    pub(crate) fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Begins to fetch these, if together they are small.
    pub(crate) fn begin<'a>(&self, layers: impl Iterator<Item = &'a Descriptor> + Clone) {
        let sizes = layers.clone().map(|layer| layer.size);
        if sizes.fold(0, u64::saturating_add) > BYTES_MAX {
            return;
        }
        for layer in layers {
            let (key, size) = (self.key(&layer.digest), layer.size);
            let (blobs, layer) = (self.blobs.clone(), layer.clone());
            let begun = self.fetched.put(&key, size, || {
                let fetching = tokio::spawn(async move { fetch(&blobs, &layer).await });
                fetching.map(|done| done.ok().flatten()).boxed().shared()
            });
            if begun {
                let fetched = self.fetched.clone();
                drop(tokio::spawn(async move {
                    tokio::time::sleep(KEPT).await;
                    fetched.forget(&key);
                }));
            }
        }
    }

    async fn read(&self, blob: &Digest, range: Range<u64>) -> Result<Bytes, SourceError> {
        if let Some(whole) = self.fetched.get(&self.key(blob))
            && let Ok(Some(bytes)) = tokio::time::timeout(WAIT_MAX, whole).await
            && let Some(part) = slice(&bytes, &range)
        {
            return Ok(part);
        }
        self.blobs.read_range(blob, range).await
    }
}

async fn fetch(blobs: &Blobs, layer: &Descriptor) -> Option<Bytes> {
    let limit = usize::try_from(BYTES_MAX).unwrap_or(usize::MAX);
    let fetched = match blobs.blob(layer).await {
        Ok(stream) => stream.into_bytes(limit).await,
        Err(error) => Err(error),
    };
    fetched
        .inspect_err(|error| {
            // Whoever needs it asks again, and says what is wrong.
            let error = error as &dyn std::error::Error;
            tracing::debug!(blob = %layer.digest, error, "a small blob was not fetched ahead");
        })
        .ok()
}

fn slice(bytes: &Bytes, range: &Range<u64>) -> Option<Bytes> {
    let start = usize::try_from(range.start).ok()?;
    let end = usize::try_from(range.end).ok()?;
    (start <= end && end <= bytes.len()).then(|| bytes.slice(start..end))
}

impl Source for Ahead {
    fn distrust(&self, blob: &Digest) {
        self.fetched.forget(&self.key(blob));
        self.blobs.distrust(blob);
    }

    fn label(&self) -> String {
        self.label.clone()
    }

    fn read_range<'a>(
        &'a self,
        blob: &'a Digest,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>> {
        Box::pin(self.read(blob, range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Key {
        let digest = Digest::sha256(&number.to_le_bytes());
        ("registry.example/some/app".to_owned(), digest)
    }

    fn nothing() -> Whole {
        futures_util::future::ready(None).boxed().shared()
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let fetched = Fetched::default();
        let most = ALL_BYTES_MAX / BYTES_MAX;
        for number in 0..most {
            assert!(fetched.put(&key(number), BYTES_MAX, nothing));
        }
        assert!(!fetched.put(&key(most), 1, || panic!("fetched")));
        fetched.forget(&key(0));
        fetched.forget(&key(0));
        assert!(fetched.get(&key(0)).is_none());
        assert!(fetched.put(&key(most), BYTES_MAX, nothing));
        assert!(!fetched.put(&key(0), 1, || panic!("fetched")));
    }

    #[test]
    fn nothing_is_fetched_twice_and_another_place_has_its_own() {
        let fetched = Fetched::default();
        assert!(fetched.put(&key(1), 5, nothing));
        assert!(!fetched.put(&key(1), 5, || panic!("fetched")));
        let elsewhere = ("registry.example/other/app".to_owned(), key(1).1);
        assert!(fetched.get(&elsewhere).is_none());
        assert!(fetched.put(&elsewhere, 5, nothing));
    }
}
