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
/// How long blobs are kept in memory: until an image that was just pulled is mounted and filled.
const KEPT: Duration = Duration::from_secs(10);

/// How long a part waits for the whole: what takes longer has gone wrong.
const WAIT_MAX: Duration = Duration::from_secs(2);

type Whole = Shared<BoxFuture<'static, Option<Bytes>>>;

/// What was fetched ahead, by the name of its place: whoever may not read there gets nothing of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fetched(Arc<Mutex<HashMap<(String, Digest), Whole>>>);

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

    fn key(&self, blob: &Digest) -> (String, Digest) {
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
        let mut fetched = self.fetched.0.lock();
        for layer in layers {
            let (key, forgotten) = (self.key(&layer.digest), self.fetched.clone());
            if fetched.contains_key(&key) {
                continue;
            }
            let (blobs, layer) = (self.blobs.clone(), layer.clone());
            let fetching = tokio::spawn(async move { fetch(&blobs, &layer).await });
            let whole = fetching.map(|done| done.ok().flatten()).boxed().shared();
            fetched.insert(key.clone(), whole);
            drop(tokio::spawn(async move {
                tokio::time::sleep(KEPT).await;
                forgotten.0.lock().remove(&key);
            }));
        }
    }

    async fn read(&self, blob: &Digest, range: Range<u64>) -> Result<Bytes, SourceError> {
        let whole = self.fetched.0.lock().get(&self.key(blob)).cloned();
        if let Some(whole) = whole
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
        self.fetched.0.lock().remove(&self.key(blob));
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
