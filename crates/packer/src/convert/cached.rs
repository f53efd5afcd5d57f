//! The layers of an image that a cache has.

use std::sync::Arc;

use draught_oci::{Document, ImageConfig, Manifest};
use futures_util::StreamExt as _;

use super::error::ConvertError;
use super::image::Packed;
use super::push::Pusher;
use crate::blocking::blocking;
use crate::cache::{CacheHit, CacheKey, Kept, RecordError};
use crate::image::ImagePacker;
use crate::options::PackOptions;

/// Begins an image with the layers that a cache has, from the lowest up to the first that none has. Their
/// blobs are in the destination, or on their way.
pub(super) async fn restore(
    source: &Document<Manifest>,
    config: &Document<ImageConfig>,
    keys: &[CacheKey],
    options: &PackOptions,
    pusher: &mut Pusher,
) -> Result<(ImagePacker, Packed), ConvertError> {
    // What a cache has is of no use when it can't be applied; half applied, it spoils the packer. Then all
    // begins again, and ends before that layer: so there are as many rounds as layers at most.
    let mut usable = keys;
    loop {
        let new = ImagePacker::new(options.clone());
        let mut packer = new.map_err(|source| ConvertError::Options { source })?;
        if !pusher.caches().is_any() {
            return Ok((packer, Packed::default()));
        }
        packer = packer.with_records();
        let mut hits = Vec::new();
        let mut packed = Packed::default();
        let mut spoilt = None;
        let caches = Arc::clone(pusher.caches());
        let mut found = caches.find_all(usable);
        for key in usable {
            let Some(first) = found.next().await.flatten() else {
                break;
            };
            let Some((at, hit)) = whole(first, key, options, pusher).await? else {
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
            let index = packed.layers.len();
            report.digest = source.layers.get(index).map(|layer| layer.digest);
            report.diff_id = config.diff_ids.get(index).copied();
            packed
                .blobs
                .push(layer.blob.as_ref().map(|blob| blob.digest));
            packed.layers.push(report);
            packed.kept.push(Kept { layer, record });
            hits.push(at);
        }
        if let Some((at, error)) = spoilt {
            pusher.caches().failed(at, &error);
            usable = usable.get(..packed.layers.len()).unwrap_or_default();
            continue;
        }
        for (index, (at, report)) in hits.iter().zip(&packed.layers).enumerate() {
            pusher.caches().count_hit(*at);
            pusher.progress().layer_cached(index, report);
        }
        return Ok((packer, packed));
    }
}

/// The layer that was found, if its blob is there too; else from the next cache that has it whole.
async fn whole(
    first: (usize, CacheHit),
    key: &CacheKey,
    options: &PackOptions,
    pusher: &mut Pusher,
) -> Result<Option<(usize, CacheHit)>, ConvertError> {
    let caches = Arc::clone(pusher.caches());
    let mut next = Some(first);
    while let Some((at, hit)) = next {
        let is_whole = match &hit.layer.blob {
            None => true,
            Some(blob) => pusher.secure(blob, at, &options.spool_dir).await?,
        };
        if is_whole {
            return Ok(Some((at, hit)));
        }
        next = caches.find(key, Some(at)).await;
    }
    Ok(None)
}
