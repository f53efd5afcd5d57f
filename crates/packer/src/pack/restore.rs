//! The layers of an image that a cache has.

use std::sync::Arc;

use futures_util::StreamExt as _;

use super::error::PackError;
use super::layer::Layer;
use super::lazy::Progressed;
use super::push::Pusher;
use crate::blocking::blocking;
use crate::cache::{CacheHit, CacheKey, Kept, RecordError};
use crate::image::ImagePacker;
use crate::options::PackOptions;

/// Begins an image with the layers that a cache has, from the lowest up to the first that none has. Their
/// blobs are where they belong, or on their way.
pub(super) async fn restore(
    layers: &[Arc<dyn Layer>],
    keys: &[CacheKey],
    options: &PackOptions,
    pusher: &mut Pusher,
) -> Result<(ImagePacker, Progressed), PackError> {
    // What a cache has is of no use when it can't be applied; half applied, it spoils the packer. Then all
    // begins again, and ends before that layer: so there are as many rounds as layers at most.
    let mut usable = keys;
    loop {
        let new = ImagePacker::new(options.clone());
        let mut packer = new.map_err(|source| PackError::Options {
            source: Box::new(source),
        })?;
        if !pusher.caches().is_any() {
            return Ok((packer, Progressed::default()));
        }
        packer = packer.with_records();
        let mut hits = Vec::new();
        let mut done = Progressed::default();
        let mut spoilt = None;
        let caches = Arc::clone(pusher.caches());
        let mut found = caches.find_all(usable);
        for key in usable {
            let Some(first) = found.next().await.flatten() else {
                break;
            };
            let Some((at, hit)) = whole(first, key, &options.spool_dir, pusher).await? else {
                break;
            };
            let outcome;
            let CacheHit { layer, record } = hit;
            (packer, outcome) = blocking(move || {
                let outcome = packer.add_recorded(&record);
                (packer, outcome.map(|outcome| (outcome, record)))
            })
            .await;
            let ((mut report, info), record) = match outcome {
                Ok(outcome) => outcome,
                Err(error) => {
                    spoilt = Some((at, error));
                    break;
                }
            };
            let is_of = info.map(|info| (info.digest, info.stored_bytes));
            let says = layer
                .blob
                .as_ref()
                .map(|blob| (Some(blob.digest), blob.size));
            if is_of != says {
                spoilt = Some((at, RecordError::Value { what: "blob" }));
                break;
            }
            let source = layers.get(done.reports.len());
            report.digest = source.and_then(|layer| Some(layer.descriptor()?.digest));
            report.diff_id = source.and_then(|layer| layer.diff_id());
            done.reports.push(report);
            done.recorded += 1;
            if caches.are_wanted() {
                done.kept.push(Arc::new(Kept { layer, record }));
            }
            hits.push(at);
        }
        if let Some((at, error)) = spoilt {
            pusher.caches().failed(at, &error);
            usable = usable.get(..done.reports.len()).unwrap_or_default();
            continue;
        }
        for (index, (at, report)) in hits.iter().zip(&done.reports).enumerate() {
            pusher.caches().count_hit(*at);
            pusher.progress().layer_cached(index, report);
        }
        return Ok((packer, done));
    }
}

/// The layer that was found, if its blob is there too; else from the next cache that has it whole.
pub(super) async fn whole(
    first: (usize, CacheHit),
    key: &CacheKey,
    spool_dir: &std::path::Path,
    pusher: &mut Pusher,
) -> Result<Option<(usize, CacheHit)>, PackError> {
    let caches = Arc::clone(pusher.caches());
    let mut next = Some(first);
    while let Some((at, hit)) = next {
        let is_whole = match &hit.layer.blob {
            None => true,
            Some(blob) => pusher.secure(blob, at, spool_dir).await?,
        };
        if is_whole {
            return Ok(Some((at, hit)));
        }
        next = caches.find(key, Some(at)).await;
    }
    Ok(None)
}
