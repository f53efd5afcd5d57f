//! Where missing blobs come from, and how they are brought.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use draught_digest::Digest;
use draught_node::KeptBlobs;
use draught_oci::{Descriptor, Location, Reference, Selector};
use draught_source::{BlobStream, Class, Client, Repository, Source as _, SourceError};
use futures_util::{StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;

use super::assembled;
use super::containerd::{Containerd, Labels};
use super::labels;
use super::write::{Written, write};
use crate::progress::Reporter;

/// Blobs under way at once: enough to fill a line whose server limits each connection, and no more than half
/// of what is open to one host at a time.
const BLOBS_AT_ONCE: usize = 4;

/// Places that have the image's blobs, the first one first.
#[derive(Debug)]
pub(crate) struct Sources {
    client: Client,
    places: Mutex<Vec<Place>>,
}

#[derive(Debug, Clone)]
struct Place {
    repository: Repository,
    reference: Option<Reference>,
    /// What is read of the node's store first.
    kept: Option<Assembly>,
}

/// A blob that is put together from what the node's store has and what a registry has.
#[derive(Debug, Clone)]
struct Assembly {
    kept: Arc<KeptBlobs>,
    /// Bytes that came from the store.
    local_bytes: Arc<AtomicU64>,
}

/// A blob that was brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Brought {
    pub(crate) descriptor: Descriptor,
    /// The place.
    pub(crate) from: String,
    pub(crate) written: Written,
    /// How many of the bytes that were fetched came from this node's store.
    pub(crate) local_bytes: u64,
}

impl Sources {
    /// One place. Those that containerd knows of are added as its labels are read.
    pub(crate) async fn new(client: Client, location: &Location) -> Result<Self> {
        let (repository, _) = client
            .open(location)
            .await
            .with_context(|| format!("open {location}"))?;
        let reference = match location {
            Location::Registry(reference) => Some(reference.clone()),
            _ => None,
        };
        let place = Place {
            repository,
            reference,
            kept: None,
        };
        Ok(Self {
            client,
            places: Mutex::new(vec![place]),
        })
    }

    /// Learns from a document's labels where else it came from: a name can be given to any image.
    pub(crate) fn also(&self, labels: &Labels) {
        let known = self.places.lock().clone();
        let known = known.iter().filter_map(|place| place.reference.as_ref());
        let known: Vec<&str> = known.map(Reference::host).collect();
        for (host, name) in labels::sources(labels) {
            // The labels have no ports: that of a place which is known is taken for the same host.
            let mut same = known.iter().filter(|it| labels::without_port(it) == host);
            let host = same.next().map_or(host.as_str(), |it| it);
            let selector = Selector::Tag("latest".to_owned());
            let Ok(reference) = Reference::new(host, &name, &selector) else {
                continue;
            };
            let Ok(repository) = self
                .client
                .registry(reference.host(), reference.repository())
            else {
                continue;
            };
            let repository = Repository::Registry(repository);
            let mut places = self.places.lock();
            let label = repository.label();
            if places.iter().all(|place| place.repository.label() != label) {
                places.push(Place {
                    repository,
                    reference: Some(reference),
                    kept: None,
                });
            }
        }
    }

    /// Brings a manifest or index.
    pub(crate) async fn document(
        &self,
        containerd: &Containerd,
        descriptor: &Descriptor,
    ) -> Result<(Bytes, String)> {
        let places = self.places.lock().clone();
        let mut first = None;
        for place in places {
            let selector = Selector::Digest(descriptor.digest);
            match place.repository.manifest(&selector).await {
                Ok(any) => {
                    let bytes = Bytes::copy_from_slice(any.bytes());
                    let open = async |_| {
                        let piece = futures_util::stream::iter([Ok(bytes.clone())]).boxed();
                        let stream = BlobStream::new(descriptor.digest, descriptor.size, piece);
                        Ok((stream, 0))
                    };
                    let labels = labels::source(place.reference.as_ref());
                    write(containerd, descriptor, &labels, open, |_| {}).await?;
                    return Ok((bytes, place.repository.label()));
                }
                Err(error) => first = first.or(Some(error)),
            }
        }
        let error = first.map_or_else(|| anyhow::anyhow!("nobody has it"), Into::into);
        Err(error).with_context(|| format!("fetch the manifest {}", descriptor.digest))
    }

    /// Brings blobs, several at once, from what this node has first. The first error is given when all that were under way have ended: what
    /// could be brought is there then.
    pub(crate) async fn bring(
        &self,
        containerd: &Containerd,
        missing: &[Descriptor],
        kept: Option<KeptBlobs>,
        reporter: &Reporter,
    ) -> Result<Vec<Brought>> {
        let kept = kept.map(Arc::new);
        let tracker = Arc::new(Tracker::new(reporter, missing));
        let bringing = missing.iter().map(|descriptor| {
            let tracker = Arc::clone(&tracker);
            let kept = kept.as_ref();
            async move { self.one(containerd, descriptor, kept, &tracker).await }
        });
        let ended: Vec<Result<Brought>> = futures_util::stream::iter(bringing)
            .buffer_unordered(BLOBS_AT_ONCE)
            .collect()
            .await;
        let mut brought: Vec<Brought> = futures_util::stream::iter(ended).try_collect().await?;
        let place = |digest: &Digest| missing.iter().position(|it| it.digest == *digest);
        brought.sort_by_key(|it| place(&it.descriptor.digest));
        Ok(brought)
    }

    async fn one(
        &self,
        containerd: &Containerd,
        descriptor: &Descriptor,
        kept: Option<&Arc<KeptBlobs>>,
        tracker: &Tracker<'_>,
    ) -> Result<Brought> {
        tracker.begin(descriptor);
        let local_bytes = Arc::new(AtomicU64::new(0));
        let mut places = self.places.lock().clone();
        if let Some(kept) = kept
            && let Some(first) = places.first().cloned()
            && kept.has(&descriptor.digest)
        {
            let assembly = Assembly {
                kept: Arc::clone(kept),
                local_bytes: Arc::clone(&local_bytes),
            };
            // What it can't do, or did wrongly, the same place does alone.
            let place = Place {
                kept: Some(assembly),
                ..first
            };
            places.insert(0, place);
        }
        let mut first = None;
        for place in places {
            let label = place.repository.label();
            let labels = labels::source(place.reference.as_ref());
            let open = async |from| place.open(descriptor, from).await;
            let progress = |position| tracker.is_at(&descriptor.digest, position);
            match write(containerd, descriptor, &labels, open, progress).await {
                Ok(written) => {
                    tracker.is_at(&descriptor.digest, descriptor.size);
                    return Ok(Brought {
                        descriptor: descriptor.clone(),
                        from: label,
                        written,
                        // What an earlier try wrote is there like anything that was.
                        local_bytes: if place.kept.is_some() {
                            local_bytes.load(Ordering::Relaxed)
                        } else {
                            0
                        },
                    });
                }
                // Another place has another chance; that containerd refuses it would be the same.
                Err(error) if is_of_source(&error) => {
                    tracing::info!(digest = %descriptor.digest, from = label, "not to be had: {error:#}");
                    first = first.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        Err(first.unwrap_or_else(|| anyhow::anyhow!("fetch {}: nobody has it", descriptor.digest)))
    }
}

fn is_of_source(error: &anyhow::Error) -> bool {
    let class = error.downcast_ref::<SourceError>().map(SourceError::class);
    class.is_some_and(|class| class != Class::Refused)
}

impl Place {
    /// A blob from a position on, or from its start where that can't be done.
    async fn open(
        &self,
        descriptor: &Descriptor,
        from: u64,
    ) -> Result<(BlobStream, u64), SourceError> {
        if let Some(Assembly { kept, local_bytes }) = &self.kept
            && let Some(kept) = assembled::find(kept, descriptor).await
        {
            let repository = self.repository.clone();
            let local_bytes = Arc::clone(local_bytes);
            let stream = assembled::stream(kept, repository, descriptor, from, local_bytes);
            return Ok((stream, from));
        }
        match &self.repository {
            Repository::Registry(registry) => Ok((registry.blob_from(descriptor, from), from)),
            local => Ok((local.blob(descriptor).await?, 0)),
        }
    }
}

/// How far all are.
struct Tracker<'a> {
    reporter: &'a Reporter,
    total_bytes: u64,
    positions: Mutex<BTreeMap<Digest, u64>>,
}

impl<'a> Tracker<'a> {
    fn new(reporter: &'a Reporter, missing: &[Descriptor]) -> Self {
        Self {
            reporter,
            total_bytes: missing.iter().map(|it| it.size).sum(),
            positions: Mutex::default(),
        }
    }

    fn begin(&self, descriptor: &Descriptor) {
        let hex: String = descriptor.digest.hex().chars().take(12).collect();
        let size = crate::units::Size(descriptor.size);
        self.reporter.part(format!("fetch {hex}, {size}"));
    }

    fn is_at(&self, digest: &Digest, position: u64) {
        let mut positions = self.positions.lock();
        positions.insert(*digest, position);
        let done = positions.values().sum();
        self.reporter.bytes(done, Some(self.total_bytes));
    }
}
