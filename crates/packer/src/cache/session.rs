//! The caches of one conversion: asked one after the other, and written together. What fails here is told
//! and noted, and that is all.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use draught_digest::Digest;
use draught_oci::{Descriptor, Manifest};
use draught_source::{BlobBackend, Client, Payload, Repository, SourceError};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use super::backend::{BuildCache, CacheError, CacheHit, CachedLayer};
use super::key::CacheKey;
use super::location::{CacheLocation, CacheOptions};
use super::report::{CacheReport, CacheUse};
use crate::progress::Progress;

/// Records that are read or written at once: enough to hide the latency of a registry.
const AT_ONCE: usize = 8;

/// A layer of an image, as it goes into the caches.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) layer: CachedLayer,
    pub(crate) record: Vec<u8>,
}

/// One cache, and what it did so far.
struct Used {
    label: String,
    /// `None` when it could not be opened.
    cache: Option<Arc<dyn BuildCache>>,
    state: Mutex<State>,
    /// Whether it is the journal: nobody asked for it, so nobody is told of it.
    is_journal: bool,
}

#[derive(Default)]
struct State {
    hits: usize,
    exported: usize,
    layers: Option<usize>,
    failures: Vec<String>,
    /// Blobs that are not in it because they could not be written.
    missing: BTreeSet<Digest>,
    /// Something could not be written: the rest is not tried any more.
    is_broken: bool,
}

/// All caches of a conversion.
pub(crate) struct Caches {
    used: Vec<Used>,
    counts: Mutex<(usize, usize)>,
    progress: Arc<dyn Progress>,
}

impl Used {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caches {
    /// Opens what can be opened, for a conversion that writes `tag` in `to`.
    pub(crate) async fn open(
        client: &Client,
        options: &CacheOptions,
        to: &Repository,
        tag: &str,
        progress: Arc<dyn Progress>,
    ) -> Self {
        let mut caches = Self::none(progress);
        let mut seen = BTreeSet::new();
        for location in &options.locations {
            let label = location.to_string();
            if !seen.insert(label.clone()) {
                continue;
            }
            let opened = location.open(client, to, tag, options.layers_max).await;
            caches.add(label, opened);
        }
        caches
    }

    /// The caches of a conversion that can't use any.
    pub(crate) fn unused(
        locations: &[CacheLocation],
        why: &'static str,
        progress: Arc<dyn Progress>,
    ) -> Self {
        let mut caches = Self::none(progress);
        for location in locations {
            let error = CacheError::Unsupported { why };
            caches.add(location.to_string(), Err(error));
        }
        caches
    }

    /// No caches.
    pub(crate) fn none(progress: Arc<dyn Progress>) -> Self {
        Self {
            used: Vec::new(),
            counts: Mutex::default(),
            progress,
        }
    }

    fn add(&mut self, label: String, opened: Result<Arc<dyn BuildCache>, CacheError>) {
        let (cache, error) = match opened {
            Ok(cache) => (Some(cache), None),
            Err(error) => (None, Some(error)),
        };
        self.used.push(Used {
            label,
            cache,
            state: Mutex::default(),
            is_journal: false,
        });
        if let Some(error) = error {
            self.failed(self.used.len() - 1, &error);
        }
    }

    /// Adds a cache that was opened.
    pub(crate) fn push(&mut self, cache: Arc<dyn BuildCache>) {
        self.add(cache.label(), Ok(cache));
    }

    /// Adds the journal: the layers of conversions that ended before their time. It is asked last.
    pub(crate) fn push_journal(&mut self, journal: Arc<dyn BuildCache>) {
        self.used.push(Used {
            label: journal.label(),
            cache: Some(journal),
            state: Mutex::default(),
            is_journal: true,
        });
    }

    /// Tells somebody else of failures.
    pub(crate) fn set_progress(&mut self, progress: Arc<dyn Progress>) {
        self.progress = progress;
    }

    /// Notes a layer, whose blob is where it belongs, in the journal.
    pub(crate) async fn note(&self, kept: &Kept) {
        for used in self.used.iter().filter(|used| used.is_journal) {
            let Some(cache) = &used.cache else { continue };
            if let Err(error) = cache.put(&kept.layer, &kept.record).await {
                let error = chain(&error);
                tracing::debug!(error, "a layer could not be noted in the journal");
            }
        }
    }

    /// Whether there is any besides the journal: then records are held until the image is complete.
    pub(crate) fn are_wanted(&self) -> bool {
        let mut used = self.used.iter();
        used.any(|used| !used.is_journal && used.cache.is_some())
    }

    /// Whether there is any that can be used.
    pub(crate) fn is_any(&self) -> bool {
        self.used.iter().any(|used| used.cache.is_some())
    }

    /// Tells and notes what went wrong with a cache.
    pub(crate) fn failed(&self, at: usize, error: &(dyn Error + 'static)) {
        let Some(used) = self.used.get(at) else {
            return;
        };
        let why = chain(error);
        if used.is_journal {
            tracing::debug!(why, "a layer in the journal is of no use");
            return;
        }
        self.progress.cache_failed(&used.label, &why);
        used.state().failures.push(why);
    }

    /// The layer, from the first cache that has it, and which that is.
    pub(crate) async fn find(
        &self,
        key: &CacheKey,
        after: Option<usize>,
    ) -> Option<(usize, CacheHit)> {
        let first = after.map_or(0, |after| after + 1);
        for (at, used) in self.used.iter().enumerate().skip(first) {
            let Some(cache) = &used.cache else { continue };
            match cache.get(key).await {
                Ok(Some(hit)) => return Some((at, hit)),
                Ok(None) => {}
                Err(error) => self.failed(at, &error),
            }
        }
        None
    }

    /// The layers, in order, each from the first cache that has it, as far as one has.
    pub(crate) fn find_all<'a>(
        &'a self,
        keys: &'a [CacheKey],
    ) -> BoxStream<'a, Option<(usize, CacheHit)>> {
        // Where no cache has the key nothing is asked for: looking ahead costs no more than what is found.
        stream::iter(keys)
            .map(|key| self.find(key, None))
            .boxed()
            .buffered(AT_ONCE)
            .boxed()
    }

    /// The same, with all caches.
    pub(crate) fn failed_all(&self, error: &(dyn Error + 'static)) {
        for (at, _, _) in self.writable() {
            self.failed(at, error);
        }
    }

    /// Where a cache's blobs are.
    pub(crate) fn blobs(&self, at: usize) -> Option<&dyn BlobBackend> {
        Some(self.used.get(at)?.cache.as_ref()?.blobs())
    }

    /// A layer came from this cache.
    pub(crate) fn count_hit(&self, at: usize) {
        if let Some(used) = self.used.get(at).filter(|used| !used.is_journal) {
            used.state().hits += 1;
            self.counts().0 += 1;
        }
    }

    /// A layer was packed.
    pub(crate) fn count_miss(&self) {
        self.counts().1 += 1;
    }

    fn counts(&self) -> MutexGuard<'_, (usize, usize)> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The caches that are still written.
    fn writable(&self) -> impl Iterator<Item = (usize, &Used, &Arc<dyn BuildCache>)> {
        let used = self.used.iter().enumerate();
        used.filter_map(|(at, used)| {
            let cache = used.cache.as_ref()?;
            (!used.is_journal && !used.state().is_broken).then_some((at, used, cache))
        })
    }

    fn broken(&self, at: usize, used: &Used, error: &(dyn Error + 'static)) {
        self.failed(at, error);
        used.state().is_broken = true;
    }

    /// Makes a layer's blob, which is in `to` by now, be in all caches.
    pub(crate) async fn push_blob(
        &self,
        to: &dyn BlobBackend,
        blob: &Descriptor,
        payload: &Payload,
    ) {
        for (at, used, cache) in self.writable() {
            let pushed = async {
                // Who puts a blob looks itself whether it is there.
                let may_mount = mountable(to, cache.blobs()).is_some();
                if !may_mount || !self.has(to, cache.blobs(), blob).await? {
                    cache.blobs().put_blob(blob, payload).await?;
                }
                Ok::<(), SourceError>(())
            };
            if let Err(source) = pushed.await {
                used.state().missing.insert(blob.digest);
                let what = format!("blob {}", blob.digest);
                self.broken(at, used, &CacheError::Write { what, source });
            }
        }
    }

    /// Nobody has the bytes of a blob any more: the caches that lack it go without.
    pub(crate) fn can_not_have(&self, blob: &Descriptor, error: &(dyn Error + 'static)) {
        for (at, used, _) in self.writable() {
            used.state().missing.insert(blob.digest);
            self.failed(at, error);
        }
    }

    /// Whether a cache lacks a blob that is in `to`, and can't mount it from there.
    pub(crate) async fn lack(&self, to: &dyn BlobBackend, blob: &Descriptor) -> bool {
        for (at, used, cache) in self.writable() {
            match self.has(to, cache.blobs(), blob).await {
                Ok(true) => {}
                Ok(false) => return true,
                Err(source) => {
                    used.state().missing.insert(blob.digest);
                    let what = format!("blob {}", blob.digest);
                    self.broken(at, used, &CacheError::Write { what, source });
                }
            }
        }
        false
    }

    /// Whether a cache's place has a blob that is in `to`, by a mount from there if it can.
    async fn has(
        &self,
        to: &dyn BlobBackend,
        blobs: &dyn BlobBackend,
        blob: &Descriptor,
    ) -> Result<bool, SourceError> {
        if blobs.has_blob(&blob.digest).await? {
            return Ok(true);
        }
        match mountable(to, blobs) {
            Some(from) => blobs.mount_blob(&blob.digest, &from).await,
            None => Ok(false),
        }
    }

    /// Hands the layers of an image, lowest first, to all caches. Their blobs are where they should be, or are
    /// known not to be.
    pub(crate) async fn finish_image(&self, layers: &[Arc<Kept>], manifest: &mut Manifest) {
        let used = self.used.iter().enumerate();
        for (at, used) in used.filter(|(_, used)| !used.is_journal) {
            let Some(cache) = &used.cache else { continue };
            let is_missing = |blob: &Descriptor| used.state().missing.contains(&blob.digest);
            // Above a hole nothing is of use.
            let whole = layers
                .iter()
                .take_while(|kept| !kept.layer.blob.as_ref().is_some_and(is_missing));
            let mut puts = stream::iter(whole)
                .map(|kept| async move {
                    let Kept { layer, record } = &**kept;
                    cache.put(layer, record).await.map(|()| layer.clone())
                })
                .boxed()
                .buffered(AT_ONCE);
            let mut put = Vec::with_capacity(layers.len());
            while let Some(layer) = puts.next().await {
                match layer {
                    Ok(layer) => put.push(layer),
                    Err(error) => {
                        self.broken(at, used, &error);
                        break;
                    }
                }
            }
            if put.is_empty() {
                continue;
            }
            used.state().exported += put.len();
            if let Err(error) = cache.finish_image(&put, manifest).await {
                self.broken(at, used, &error);
                used.state().exported = 0;
            }
        }
    }

    /// Makes what was put be found by others.
    pub(crate) async fn commit(&self) {
        for (at, used) in self.used.iter().enumerate() {
            let Some(cache) = &used.cache else { continue };
            if used.is_journal {
                // All is done: nothing of it will be asked for.
                drop(cache.commit().await);
                continue;
            }
            if used.state().exported == 0 {
                continue;
            }
            match cache.commit().await {
                Ok(layers) => used.state().layers = Some(layers),
                Err(error) => self.broken(at, used, &error),
            }
        }
    }

    /// What became of them; `None` when there are none.
    pub(crate) fn report(&self) -> Option<CacheReport> {
        let used = || self.used.iter().filter(|used| !used.is_journal);
        used().next()?;
        let (hits, misses) = *self.counts();
        let caches = used().map(|used| {
            let state = used.state();
            CacheUse {
                cache: used.label.clone(),
                hits: state.hits,
                exported: state.layers.map(|layers| state.exported.min(layers)),
                layers: state.layers,
                failures: state.failures.clone(),
            }
        });
        Some(CacheReport {
            hits,
            misses,
            caches: caches.collect(),
        })
    }
}

/// The repository that a blob of `from` can be mounted from, if it is of the same registry as `to`.
pub(crate) fn mountable(from: &dyn BlobBackend, to: &dyn BlobBackend) -> Option<String> {
    let ((host, name), (to_host, to_name)) = (from.in_registry()?, to.in_registry()?);
    (host == to_host && name != to_name).then(|| name.to_owned())
}

/// An error with all its causes, in a line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
