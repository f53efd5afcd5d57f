//! Layers that stay archives, each by itself.

use std::str::FromStr;
use std::sync::Arc;

use draught_digest::Digest;
use draught_importer::{ESTARGZ_TOC_DIGEST, ESTARGZ_UNCOMPRESSED_BYTES};
use draught_oci::{Descriptor, media_type};
use futures_util::StreamExt as _;

use super::error::PackError;
use super::layer::{Layer, input};
use super::lazy::name;
use super::output::{ArchiveFormat, ArchiveOptions, GZIP_LEVEL_DEFAULT};
use super::packed::{ListedLayer, Packed};
use super::packer::Packer;
use super::{is_estargz, restore};
use crate::archive::{self, Written};
use crate::blocking::blocking;
use crate::cache::{CacheHit, CacheKey, Kept, RecordError, cached_layer, chain};
use crate::layer::{Content, PackLayerError};
use crate::progress::LayerReport;
use crate::spool::Spool;

/// Writes layers, each by itself.
pub(super) async fn pack(
    packer: &mut Packer,
    options: &ArchiveOptions,
    layers: &[Arc<dyn Layer>],
) -> Result<Packed, PackError> {
    let wanted: Vec<Option<CacheKey>> = layers
        .iter()
        .map(|layer| match as_it_is(&**layer, &options.format) {
            Some(_) => None,
            None => CacheKey::alone(&options.format, &**layer),
        })
        .collect();
    let keys: Vec<CacheKey> = wanted.iter().flatten().copied().collect();
    let caches = Arc::clone(packer.pusher.caches());
    let mut found = caches.find_all(&keys);
    let mut packed = Packed::default();
    for (index, (layer, key)) in layers.iter().zip(&wanted).enumerate() {
        if let Some(listed) = as_it_is(&**layer, &options.format) {
            carry_over(packer, options, index, &**layer, listed, &mut packed).await?;
            continue;
        }
        if let Some(key) = key {
            let hit = found.next().await.flatten();
            if let Some(hit) = hit
                && restored(packer, options, index, key, hit, &mut packed).await?
            {
                continue;
            }
        }
        write(packer, options, index, &**layer, *key, &mut packed).await?;
    }
    Ok(packed)
}

/// Writes what is no archive yet, as the only layer.
pub(super) async fn pack_content<C: Content + Send + 'static>(
    packer: &mut Packer,
    options: &ArchiveOptions,
    mut content: C,
) -> Result<Packed, PackError> {
    let progress = Arc::clone(packer.pusher.progress());
    progress.layer_started(0, None);
    let writes = options.clone();
    let written = blocking(move || archive::write_content(&mut content, &writes)).await;
    let written = written.map_err(|source| PackError::Directory {
        source: Box::new(source),
    })?;
    progress.layer_packed(0, &written.report);
    let mut packed = Packed::default();
    push(packer, options, 0, written, None, &mut packed).await?;
    Ok(packed)
}

/// The layer as a manifest of OCI lists it, if it is what is wanted already.
fn as_it_is(layer: &dyn Layer, format: &ArchiveFormat) -> Option<(Descriptor, Digest)> {
    let descriptor = layer.descriptor()?;
    let diff_id = layer.diff_id()?;
    let compression = media_type::layer_compression(&media_type::essence(&descriptor.media_type))?;
    let (wanted, media_type) = match format {
        ArchiveFormat::Gzip { .. } => (!is_estargz(layer), media_type::LAYER_TAR_GZIP),
        ArchiveFormat::Estargz(_) => (is_estargz(layer), media_type::LAYER_TAR_GZIP),
        ArchiveFormat::Zstd { .. } => (true, media_type::LAYER_TAR_ZSTD),
    };
    let compressed = match format {
        ArchiveFormat::Gzip { .. } | ArchiveFormat::Estargz(_) => {
            compression == media_type::LayerCompression::Gzip
        }
        ArchiveFormat::Zstd { .. } => compression == media_type::LayerCompression::Zstd,
    };
    let descriptor = Descriptor {
        media_type: media_type.to_owned(),
        ..descriptor.clone()
    };
    (wanted && compressed).then_some((descriptor, diff_id))
}

/// Takes a layer over as it is.
async fn carry_over(
    packer: &mut Packer,
    options: &ArchiveOptions,
    index: usize,
    layer: &dyn Layer,
    (descriptor, diff_id): (Descriptor, Digest),
    packed: &mut Packed,
) -> Result<(), PackError> {
    let pusher = &mut packer.pusher;
    let progress = Arc::clone(pusher.progress());
    progress.layer_started(index, Some(descriptor.size));
    let from = layer.in_registry();
    if !pusher.has_or_mounts(&descriptor, from).await? {
        let failed = |source| PackError::Open {
            layer: index + 1,
            name: name(layer),
            source: Box::new(source),
        };
        let mut reader = layer.open().await.map_err(failed)?;
        let dir = options.spool_dir.clone();
        let told = Arc::clone(&progress);
        let spooled = blocking(move || {
            let mut spool = Spool::new(&dir)?;
            std::io::copy(&mut reader, &mut spool)?;
            let spooled = spool.finish();
            told.layer_read(index, spooled.bytes());
            std::io::Result::Ok(spooled)
        })
        .await;
        let spooled = spooled.map_err(|source| PackError::Spool { source })?;
        // Where bytes are checked that did not come from a place that does it itself.
        let wrong = if spooled.bytes() != descriptor.size {
            Some(PackLayerError::Size {
                expected_bytes: descriptor.size,
                got_bytes: spooled.bytes(),
            })
        } else if spooled.digest() != descriptor.digest {
            Some(PackLayerError::Digest {
                expected: descriptor.digest,
                got: spooled.digest(),
            })
        } else {
            None
        };
        if let Some(wrong) = wrong {
            return Err(PackError::Layer {
                layer: index + 1,
                name: name(layer),
                source: Box::new(wrong),
            });
        }
        pusher.push_layer(descriptor.clone(), spooled, None).await?;
    }
    let report = LayerReport {
        stored_bytes: descriptor.size,
        digest: Some(descriptor.digest),
        diff_id: Some(diff_id),
        decoded_bytes: 0,
        entries: 0,
        chunks: 0,
        new_chunks: 0,
        blob_bytes: descriptor.size,
        cached: false,
    };
    progress.layer_packed(index, &report);
    packed.reports.push(report);
    packed.layers.push(ListedLayer {
        descriptor,
        diff_id,
        of: Some(index),
    });
    Ok(())
}

/// Takes a layer from a cache; `false` when it can't be had from there.
async fn restored(
    packer: &mut Packer,
    options: &ArchiveOptions,
    index: usize,
    key: &CacheKey,
    hit: (usize, CacheHit),
    packed: &mut Packed,
) -> Result<bool, PackError> {
    let pusher = &mut packer.pusher;
    let whole = restore::whole(hit, key, &options.spool_dir, pusher).await?;
    let Some((at, CacheHit { layer, record })) = whole else {
        return Ok(false);
    };
    let blob = layer.blob.as_ref();
    let read = std::str::from_utf8(&record).ok().and_then(|text| {
        let read: Record = text.parse().ok()?;
        Some((read, blob?.clone()))
    });
    let Some((read, blob)) = read else {
        let error = RecordError::Value { what: "archive" };
        pusher.caches().failed(at, &error);
        return Ok(false);
    };
    let report = LayerReport {
        blob_bytes: blob.size,
        cached: true,
        ..read.report
    };
    pusher.caches().count_hit(at);
    pusher.progress().layer_cached(index, &report);
    packed.reports.push(report);
    packed.layers.push(ListedLayer {
        descriptor: described(&options.format, blob.digest, blob.size, read.toc),
        diff_id: read.diff_id,
        of: Some(index),
    });
    packed.kept.push(Arc::new(Kept { layer, record }));
    Ok(true)
}

/// Reads a layer and writes it anew.
async fn write(
    packer: &mut Packer,
    options: &ArchiveOptions,
    index: usize,
    layer: &dyn Layer,
    key: Option<CacheKey>,
    packed: &mut Packed,
) -> Result<(), PackError> {
    let progress = Arc::clone(packer.pusher.progress());
    let bytes = layer.descriptor().map(|descriptor| descriptor.size);
    progress.layer_started(index, bytes);
    let written = match written(packer, options, index, layer).await {
        Err(PackError::Layer { source, .. }) if is_limit_of_format(&source) => {
            progress.layer_stays_plain(index, &chain(&*source));
            let plain = ArchiveOptions {
                format: ArchiveFormat::Gzip {
                    level: GZIP_LEVEL_DEFAULT,
                },
                ..options.clone()
            };
            written(packer, &plain, index, layer).await?
        }
        written => written?,
    };
    progress.layer_packed(index, &written.report);
    packer.pusher.caches().count_miss();
    push(packer, options, index, written, key, packed).await
}

async fn written(
    packer: &Packer,
    options: &ArchiveOptions,
    index: usize,
    layer: &dyn Layer,
) -> Result<Written, PackError> {
    let reader = layer.open().await.map_err(|source| PackError::Open {
        layer: index + 1,
        name: name(layer),
        source: Box::new(source),
    })?;
    let input = input(layer, reader);
    let (told, writes) = (Arc::clone(packer.pusher.progress()), options.clone());
    let written = blocking(move || archive::write_layer(input, &writes, index, &*told)).await;
    written.map_err(|source| PackError::Layer {
        layer: index + 1,
        name: name(layer),
        source: Box::new(source),
    })
}

/// Whether there is nothing wrong with a layer but that the format can't hold it: other layers of the image
/// can be of that format nevertheless.
fn is_limit_of_format(error: &PackLayerError) -> bool {
    matches!(error, PackLayerError::Estargz { source } if source.is_limit_of_format())
}

async fn push(
    packer: &mut Packer,
    options: &ArchiveOptions,
    index: usize,
    written: Written,
    key: Option<CacheKey>,
    packed: &mut Packed,
) -> Result<(), PackError> {
    let Written {
        content,
        diff_id,
        toc,
        report,
    } = written;
    let descriptor = described(&options.format, content.digest(), content.bytes(), toc);
    let kept = key.map(|key| {
        let record = Record {
            diff_id,
            toc,
            report: report.clone(),
        };
        let record = record.to_string().into_bytes();
        let blob = Some((content.digest(), content.bytes()));
        Arc::new(Kept {
            layer: cached_layer(key, &record, blob),
            record,
        })
    });
    packed.kept.extend(kept.clone());
    packed.reports.push(report);
    packed.layers.push(ListedLayer {
        descriptor: descriptor.clone(),
        diff_id,
        of: Some(index),
    });
    packer.pusher.push_layer(descriptor, content, kept).await
}

/// A layer as a manifest lists it.
fn described(
    format: &ArchiveFormat,
    digest: Digest,
    bytes: u64,
    toc: Option<(Digest, u64)>,
) -> Descriptor {
    let media_type = match format {
        ArchiveFormat::Zstd { .. } => media_type::LAYER_TAR_ZSTD,
        ArchiveFormat::Gzip { .. } | ArchiveFormat::Estargz(_) => media_type::LAYER_TAR_GZIP,
    };
    let descriptor = Descriptor::new(media_type, digest, bytes);
    match toc {
        None => descriptor,
        Some((toc, uncompressed_bytes)) => descriptor
            .with_annotation(ESTARGZ_TOC_DIGEST, toc.to_string())
            .with_annotation(ESTARGZ_UNCOMPRESSED_BYTES, uncompressed_bytes.to_string()),
    }
}

/// What a cache keeps of a layer beside its blob: a line of words.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    diff_id: Digest,
    toc: Option<(Digest, u64)>,
    report: LayerReport,
}

/// How every record begins; another version is another word.
const MAGIC: &str = "archive1";

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LayerReport {
            stored_bytes,
            decoded_bytes,
            entries,
            digest,
            diff_id,
            ..
        } = &self.report;
        let word = |digest: &Option<Digest>| {
            digest
                .as_ref()
                .map_or_else(|| "-".to_owned(), ToString::to_string)
        };
        let (toc, bytes) = match self.toc {
            Some((toc, bytes)) => (Some(toc), bytes),
            None => (None, 0),
        };
        write!(
            f,
            "{MAGIC} {} {} {bytes} {stored_bytes} {decoded_bytes} {entries} {} {}",
            self.diff_id,
            word(&toc),
            word(digest),
            word(diff_id),
        )
    }
}

impl FromStr for Record {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(());
        let optional = |word: &str| match word {
            "-" => Ok(None),
            digest => digest.parse().map(Some).map_err(drop),
        };
        if word()? != MAGIC {
            return Err(());
        }
        let diff_id = word()?.parse().map_err(drop)?;
        let toc: Option<Digest> = optional(word()?)?;
        let mut number = || word()?.parse::<u64>().map_err(drop);
        let bytes = number()?;
        let (stored_bytes, decoded_bytes, entries) = (number()?, number()?, number()?);
        let report = LayerReport {
            stored_bytes,
            digest: optional(word()?)?,
            diff_id: optional(word()?)?,
            decoded_bytes,
            entries,
            chunks: 0,
            new_chunks: 0,
            blob_bytes: 0,
            cached: true,
        };
        match words.next() {
            Some(_) => Err(()),
            None => Ok(Self {
                diff_id,
                toc: toc.map(|toc| (toc, bytes)),
                report,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_as_it_is_written_and_nothing_else_does() {
        let digest = Digest::sha256(b"");
        let report = LayerReport {
            stored_bytes: 1,
            digest: Some(digest),
            diff_id: None,
            decoded_bytes: 2,
            entries: 3,
            chunks: 0,
            new_chunks: 0,
            blob_bytes: 0,
            cached: true,
        };
        for toc in [None, Some((digest, 7))] {
            let record = Record {
                diff_id: digest,
                toc,
                report: report.clone(),
            };
            let text = record.to_string();
            assert_eq!(text.parse(), Ok(record));
            for (at, _) in text.char_indices() {
                text[..at].parse::<Record>().unwrap_err();
            }
            format!("{text} 1").parse::<Record>().unwrap_err();
        }
    }
}
