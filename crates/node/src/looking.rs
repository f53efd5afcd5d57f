//! What people look at: traces, profiles and numbers of what is mounted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use draught_fill::Priority;
use draught_profile::{Limits, Profile};

use crate::catalog::TOUCHES;
use crate::error::MountError;
use crate::image::Image;
use crate::mounts::Mounts;
use crate::paths::Paths;
use crate::profiles::{START_BYTES_MAX, START_MS};
use crate::record::METADATA;
use crate::served::total;
use crate::touches::{Touch, Touches};
use crate::trace::{ImageTrace, TraceArea, TraceBlob, TraceFault, TraceFetch, TracePriority};
use crate::worker::Worker;

impl Mounts {
    /// The image that was mounted by that reference last.
    fn live_image(&self, reference: &str) -> Result<(Arc<Image>, String), MountError> {
        let inner = self.inner.lock();
        let live = inner.live.iter().rev();
        let mut named = live.filter(|live| {
            let digest = live.image.as_ref().map(|image| &image.record.digest);
            live.record.origin.reference == reference || digest.is_some_and(|it| it == reference)
        });
        let image =
            named.find_map(|live| Some((live.image.clone()?, live.record.transport.clone())));
        image.ok_or_else(|| MountError::NotLive {
            reference: reference.to_owned(),
        })
    }
}

/// Bytes that a start is known to touch, in whole blocks.
pub(crate) fn start_bytes(touches: &Touches) -> u64 {
    let touched = start_of(touches.order());
    let each = touched
        .iter()
        .map(|touch| touch.range().end - touch.range().start);
    each.fold(0, u64::saturating_add)
}

impl Worker {
    fn paths(&self, image: &str) -> Result<Paths, MountError> {
        let metadata = self.store.read_image_file(image, METADATA);
        Paths::read(&metadata.map_err(MountError::Kept)?).map_err(MountError::Metadata)
    }

    /// Fetches what a start of an image is known to touch, and if asked for, everything else afterwards.
    pub(crate) fn prefetch(&self, image: &Image, all: bool) {
        let feeds = self.engine.feeds_of(image.id);
        let mut wanted = Vec::new();
        {
            let touches = image.touches.lock();
            for touch in start_of(touches.order()) {
                // Where a chunk is in several blobs, the first will do.
                let range = touch.range();
                let found = feeds.iter().find_map(|feed| {
                    let covering = feed.map.covering(touch.device, &range);
                    let extents = covering.map(|(extent, _)| (feed.id, extent));
                    Some(extents.collect::<Vec<_>>()).filter(|extents| !extents.is_empty())
                });
                wanted.extend(found.into_iter().flatten());
            }
        }
        wanted.dedup();
        tracing::debug!(image = image.name, extents = wanted.len(), "prefetching");
        self.engine.prefetch(wanted, Priority::Prefetch);
        if all {
            self.engine.prefetch_all(image.id);
        }
    }

    /// Writes down what was touched of an image, if anything is new.
    pub(crate) fn keep_touches(&self, image: &Image) {
        let bytes = {
            let mut touches = image.touches.lock();
            if !std::mem::take(&mut touches.is_new) {
                return;
            }
            touches.encode()
        };
        let kept = self.store.put_image_file_soon(&image.name, TOUCHES, &bytes);
        if let Err(error) = kept {
            tracing::warn!(%error, image = image.name, "what was touched is not kept");
        }
    }

    /// Keeps what was touched of an image that was unmounted as a profile, for the next version of it.
    pub(crate) fn keep_profile(&self, image: &Image, reference: &str) {
        let touches = image.touches.lock().order().to_vec();
        if touches.is_empty() {
            return;
        }
        let digest = &image.record.digest;
        let kept = self.paths(&image.name).map(|paths| {
            let profile = paths.profile(start_of(&touches), reference, digest);
            self.profiles.keep(reference, Some(digest), &profile)
        });
        match kept {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, reference, "a profile is not kept"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, reference, "a profile can't be made");
            }
        }
    }

    /// What was touched of an image, as the text of a profile.
    pub(crate) fn export_profile(&self, reference: &str) -> Result<String, MountError> {
        self.engine.attribute_touches();
        let (name, digest, touches) = match self.mounts.live_image(reference).map(|it| it.0) {
            Ok(image) => {
                let touches = image.touches.lock().order().to_vec();
                (image.name.clone(), image.record.digest.clone(), touches)
            }
            Err(_) => self.mounts.kept_touches(self, reference)?,
        };
        let profile = self
            .paths(&name)?
            .profile(start_of(&touches), reference, &digest);
        if profile.touches.is_empty() {
            let reference = reference.to_owned();
            return Err(MountError::NothingRecorded { reference });
        }
        Ok(String::from_utf8_lossy(&profile.encode()).into_owned())
    }

    /// Keeps a profile for an image's next mount.
    pub(crate) fn import_profile(&self, reference: &str, text: &str) -> Result<(), MountError> {
        let profile =
            Profile::parse(text.as_bytes(), &Limits::default()).map_err(MountError::Profile)?;
        let image = profile.image.map(|image| image.to_string());
        self.profiles
            .keep(reference, image.as_deref(), &profile)
            .map_err(MountError::Kept)?;
        self.mounts.import_touches(self, reference, &profile)
    }

    /// What happened since an image was mounted.
    pub(crate) fn trace(&self, reference: &str) -> Result<ImageTrace, MountError> {
        let (image, transport) = self.mounts.live_image(reference)?;
        self.engine.attribute_touches();
        let paths = self.paths(&image.name)?;
        let mut trace = ImageTrace {
            reference: reference.to_owned(),
            digest: image.record.digest.clone(),
            transport,
            age_ms: image.age_ms(),
            bytes_total: image.bytes_total(),
            bytes_present: image.bytes_present(),
            bytes_fetched: image.stats.bytes_fetched.load(Ordering::Relaxed),
            bytes_shared: image.record.bytes_shared,
            blobs: Vec::new(),
            fetches: Vec::new(),
            faults: Vec::new(),
            areas: areas(&image, &paths),
            dropped: 0,
        };
        let source = image.source_labels().join(", ");
        for blob in &image.record.blobs {
            trace.blobs.push(TraceBlob {
                digest: blob.digest.clone(),
                stored_bytes: blob.stored_bytes,
                source: source.clone(),
            });
        }
        let log = image.log.lock();
        trace.dropped = log.dropped;
        trace
            .fetches
            .extend(log.fetches.iter().map(|one| TraceFetch {
                at_ms: one.at_ms,
                took_ms: one.took_ms,
                blob: one.feed,
                start: one.start,
                bytes: one.bytes,
                priority: match one.priority {
                    Priority::Demand => TracePriority::Demand,
                    Priority::Prefetch => TracePriority::Prefetch,
                    Priority::Background => TracePriority::Background,
                },
                ok: one.ok,
            }));
        for one in &log.faults {
            let device = image
                .devices
                .iter()
                .position(|served| served.id == one.device);
            let device = device.and_then(|device| u16::try_from(device).ok());
            let block =
                |bytes: u64| u32::try_from(bytes / draught_tree::BLOCK_BYTES).unwrap_or(u32::MAX);
            let found = device.map(|device| paths.at(device, block(one.start)..block(one.end)));
            let first = found.unwrap_or_default().into_iter().next();
            let (path, offset) = first.map_or((String::new(), 0), |(file, bytes)| {
                (
                    String::from_utf8_lossy(&file.path).into_owned(),
                    bytes.start,
                )
            });
            trace.faults.push(TraceFault {
                at_ms: one.at_ms,
                waited_us: one.waited_us,
                path,
                offset,
                bytes: one.end - one.start,
                ok: one.ok,
            });
        }
        Ok(trace)
    }
}

/// The touches of an image's start: until work begins, and no more than is sensible.
fn start_of(touches: &[Touch]) -> &[Touch] {
    let first_ms = touches.first().map_or(0, |touch| u64::from(touch.at_ms));
    let mut bytes = 0;
    let is_start = |touch: &&Touch| {
        bytes += touch.range().end - touch.range().start;
        bytes <= START_BYTES_MAX && u64::from(touch.at_ms) <= first_ms + START_MS
    };
    let count = touches.iter().take_while(is_start).count();
    touches.get(..count).unwrap_or_default()
}

/// How much of each file is there, and since when.
fn areas(image: &Image, paths: &Paths) -> Vec<TraceArea> {
    let mut first: BTreeMap<(u16, u32), (u32, u32)> = BTreeMap::new();
    for touch in image.touches.lock().order() {
        first.insert((touch.device, touch.block), (touch.blocks, touch.at_ms));
    }
    let area = |file: &crate::paths::PathFile| {
        let (mut present, mut touched_at_ms) = (0, None);
        for (device, bytes) in Paths::places(file) {
            let Some(served) = image.devices.get(usize::from(device)) else {
                continue;
            };
            let missing = total(&served.device().missing(bytes.clone()));
            present += bytes.end - bytes.start - missing;
            let block =
                |bytes: u64| u32::try_from(bytes / draught_tree::BLOCK_BYTES).unwrap_or(u32::MAX);
            let (start, end) = (block(bytes.start), block(bytes.end));
            // Touches do not overlap: the first that ends before it is the last to look at.
            let before = first.range((device, 0)..(device, end)).rev();
            let within = before.take_while(|((_, from), (blocks, _))| from + blocks > start);
            let earliest = within.map(|(_, (_, at_ms))| u64::from(*at_ms)).min();
            touched_at_ms = touched_at_ms.into_iter().chain(earliest).min();
        }
        TraceArea {
            path: String::from_utf8_lossy(&file.path).into_owned(),
            bytes: file.bytes,
            present: present.min(file.bytes),
            shared: image.shared_bytes(file).min(file.bytes),
            touched_at_ms,
        }
    };
    paths.files.iter().map(area).collect()
}

impl Image {
    /// How many bytes of a file lie on devices that other images brought.
    fn shared_bytes(&self, file: &crate::paths::PathFile) -> u64 {
        let places = Paths::places(file);
        let shared = places.filter(|(device, _)| usize::from(*device) < self.record.devices_shared);
        shared.map(|(_, bytes)| bytes.end - bytes.start).sum()
    }
}

impl Mounts {
    /// The recording of an image that is not mounted: its name in the store, its digest, and the touches.
    fn kept_touches(
        &self,
        worker: &Worker,
        reference: &str,
    ) -> Result<(String, String, Vec<Touch>), MountError> {
        let mut catalog = self.catalog.lock();
        let name = catalog.named(&worker.store, reference).into_iter().next();
        let name = name.ok_or_else(|| MountError::NoImage {
            reference: reference.to_owned(),
        })?;
        let digest = catalog.entries(&worker.store).get(&name);
        let digest = digest
            .map(|entry| entry.record.digest.clone())
            .unwrap_or_default();
        let touches = crate::catalog::read_touches(&worker.store, &name);
        Ok((name, digest, touches.order().to_vec()))
    }

    /// Uses a profile for images that are in the store already: what it says comes before what was recorded.
    fn import_touches(
        &self,
        worker: &Worker,
        reference: &str,
        profile: &Profile,
    ) -> Result<(), MountError> {
        let mut catalog = self.catalog.lock();
        for name in catalog.named(&worker.store, reference) {
            let paths = worker.paths(&name)?;
            let mut touches = paths.touches(profile);
            let live = self
                .inner
                .lock()
                .images
                .get(&name)
                .map(|(image, _)| Arc::clone(image));
            let before = match &live {
                Some(image) => image.touches.lock().order().to_vec(),
                None => crate::catalog::read_touches(&worker.store, &name)
                    .order()
                    .to_vec(),
            };
            for touch in before {
                let blocks = touch.block..touch.block.saturating_add(touch.blocks);
                touches.touch(touch.at_ms, touch.device, blocks);
            }
            let bytes = touches.encode();
            worker
                .store
                .put_image_file_soon(&name, TOUCHES, &bytes)
                .map_err(MountError::Kept)?;
            if let Some(image) = live {
                *image.touches.lock() = Touches::decode(&bytes).unwrap_or_default();
            }
        }
        Ok(())
    }
}
