//! A cache under a tag of a registry.
//!
//! Registries have no compare-and-swap. So what the tag stands for is read right before it is written, what
//! others put is merged, and after a while it is read again: if somebody who had read before wrote after us,
//! ours is not in it, and all is done once more. The while is what two writers may lie apart for neither to
//! lose anything; a writer whose request is under way for longer can take records of others away. That costs
//! a miss, never a wrong image.

use std::time::{Duration, Instant, SystemTime};

use draught_oci::{Manifest, Reference};
use draught_source::{BlobBackend, RegistryRepository, Repository, SourceError};
use futures_util::future::BoxFuture;

use super::backend::{BuildCache, CacheError, CacheHit, CachedLayer};
use super::document;
use super::key::CacheKey;
use super::shelf::{Shelf, tagged};

/// The tag when none is named.
const DEFAULT_TAG: &str = "latest";

/// How long others may take at least from reading the tag to having written it: some requests.
const SETTLE: Duration = Duration::from_millis(300);
/// How much longer than we they may take.
const SETTLE_FACTOR: u32 = 3;
/// Nobody waits longer than that for the sake of others' misses.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// How often it is written before it is given up. Each round all but one of those who write at the same time
/// are done, and few do.
const TRIES: u32 = 8;

/// The tag that a cache is under.
pub(super) fn tag_of(reference: &Reference) -> &str {
    reference.tag().unwrap_or(DEFAULT_TAG)
}

/// A tag, and what it stood for when it was opened.
#[derive(Debug)]
pub(super) struct RegistryCache {
    reference: Reference,
    tag: String,
    shelf: Shelf,
    layers_max: usize,
}

impl RegistryCache {
    pub(super) async fn open(
        registry: RegistryRepository,
        reference: &Reference,
        layers_max: usize,
    ) -> Result<Self, CacheError> {
        let repository = Repository::Registry(registry);
        let tag = tag_of(reference).to_owned();
        let (found, _) = tagged(&repository, &tag, &reference.to_string()).await?;
        Ok(Self {
            reference: reference.clone(),
            tag,
            shelf: Shelf::new(repository, found),
            layers_max,
        })
    }

    async fn current(&self) -> Result<Vec<CachedLayer>, CacheError> {
        let what = self.reference.to_string();
        let (current, _) = tagged(&self.shelf.repository, &self.tag, &what).await?;
        Ok(current)
    }

    async fn merge_and_write(&self) -> Result<usize, CacheError> {
        let mut used = self.shelf.used();
        for attempt in 0..TRIES {
            let start = Instant::now();
            let current = self.current().await?;
            let merged = document::merge(&used, &current, self.layers_max);
            if merged == current {
                return Ok(merged.len());
            }
            match self.write(&merged).await {
                Ok(()) => {}
                Err(error) if names_what_is_missing(&error) && attempt == 0 => {
                    // Somebody deleted blobs: their layers go too, or nothing could ever be written again.
                    used = self.shelf.whole(used).await?;
                    let others = self.shelf.whole(current).await?;
                    let merged = document::merge(&used, &others, self.layers_max);
                    self.write(&merged).await?;
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(settle(start.elapsed()) + jitter(attempt)).await;
            let now = self.current().await?;
            let is_there = |layer: &CachedLayer| now.contains(layer);
            // Where there is no room, what is not there was not lost.
            if used.iter().all(is_there) || now.len() >= self.layers_max {
                return Ok(now.len());
            }
        }
        Err(CacheError::Contended { tries: TRIES })
    }

    async fn write(&self, layers: &[CachedLayer]) -> Result<(), CacheError> {
        let manifest = document::write(layers, None);
        self.shelf.write(Some(&self.tag), manifest).await
    }
}

/// Whether the registry says that it does not have what the manifest names.
fn names_what_is_missing(error: &CacheError) -> bool {
    matches!(
        error,
        CacheError::Write {
            source: SourceError::Status {
                status: 400 | 404,
                ..
            },
            ..
        }
    )
}

/// How long to wait before the tag is read again, if reading and writing it took so long: others are where
/// we are, and as slow.
fn settle(took: Duration) -> Duration {
    took.saturating_mul(SETTLE_FACTOR).clamp(SETTLE, SETTLE_MAX)
}

/// Apart from others who try again too: longer each time, and by what the clock says.
fn jitter(attempt: u32) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanos = now.map(|now| now.subsec_nanos()).unwrap_or_default();
    let most = SETTLE.saturating_mul(attempt) / 2;
    let most_ns = u32::try_from(most.as_nanos()).unwrap_or(u32::MAX);
    Duration::from_nanos((nanos % most_ns.max(1)).into())
}

impl BuildCache for RegistryCache {
    fn label(&self) -> String {
        format!("registry:{}", self.reference)
    }

    fn blobs(&self) -> &dyn BlobBackend {
        &self.shelf.repository
    }

    fn get<'a>(&'a self, key: &'a CacheKey) -> BoxFuture<'a, Result<Option<CacheHit>, CacheError>> {
        Box::pin(self.shelf.get(key))
    }

    fn put<'a>(
        &'a self,
        layer: &'a CachedLayer,
        record: &'a [u8],
    ) -> BoxFuture<'a, Result<(), CacheError>> {
        Box::pin(self.shelf.put(layer, record))
    }

    fn finish_image<'a>(
        &'a self,
        layers: &'a [CachedLayer],
        _: &'a mut Manifest,
    ) -> BoxFuture<'a, Result<(), CacheError>> {
        self.shelf.count_used(layers);
        Box::pin(async { Ok(()) })
    }

    fn commit(&self) -> BoxFuture<'_, Result<usize, CacheError>> {
        Box::pin(self.merge_and_write())
    }
}
