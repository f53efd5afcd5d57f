//! Content that is read lazily: metadata, tables, chunks.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use draught_digest::Digest;
use draught_importer::{Details, NYDUS_BLOB_MEDIA_TYPE, Nydus, Opened};
use draught_oci::{Descriptor, Manifest};
use draught_rafs::blob::{
    BlobInfo, ChunkTable, TOC_TAIL_BYTES, TableLimits, Toc, TocEntry, TocLimits,
};
use draught_source::{BlobReader, Blobs, Source as _};
use draught_tree::{BlobId, Chunk, ChunkId, ChunkMap, Kind, Tree};
use tokio::runtime::Handle;

use super::blob::{self, Contents};
use super::fault::{Fault, Findings};
use crate::open;
use crate::progress::Reporter;

/// Bytes of the header behind a chunk-info table.
const TABLE_HEADER_BYTES: u64 = 4096;

/// Checks an image's metadata and its blobs.
pub(crate) async fn check(
    source: &Blobs,
    manifest: &Manifest,
    layers: &[Descriptor],
    findings: &mut Findings,
    reporter: &Reporter,
) -> Result<()> {
    reporter.part("metadata");
    let opened = match open::import(source, manifest).await {
        Ok(opened) => opened,
        Err(error) => {
            let error = error.context("read the image's metadata");
            findings.add(Fault::from_error(&manifest.config.digest, &error));
            return Ok(());
        }
    };
    let Opened { tree, details, .. } = opened;
    let mut named: BTreeSet<Digest> = BTreeSet::new();
    let mut wrong: Vec<(ChunkId, Fault)> = Vec::new();
    for (id, blob) in (0..).map(BlobId).zip(&tree.map.blobs) {
        let digest = blob.digest;
        named.insert(digest);
        let layer = layers.iter().find(|layer| layer.digest == digest);
        let elsewhere;
        let layer = match layer {
            Some(layer) => layer,
            None => {
                elsewhere = Descriptor::new(NYDUS_BLOB_MEDIA_TYPE, digest, blob.stored_bytes);
                &elsewhere
            }
        };
        reporter.part(format!("blob {digest}"));
        if let Details::Nydus(nydus) = &details
            && let Some(info) = nydus.blobs.get(id.index())
        {
            let checked = tables(source, layer, &tree.map, id, info, nydus).await;
            findings.add_error(&digest, checked.context("check the tables"));
        }
        wrong.extend(chunks(source, layer, &tree.map, id, findings, reporter).await?);
    }
    for layer in layers.iter().filter(|layer| !named.contains(&layer.digest)) {
        // Nothing reads it, so nothing can be wrong with it, but it should be what it says.
        findings.blobs += 1;
        findings.bytes = findings.bytes.saturating_add(layer.size);
        let drained = drain(source, layer).await;
        findings.add_error(&layer.digest, drained);
    }
    name_files(&tree, wrong, findings);
    Ok(())
}

/// Reads a blob to its end.
async fn drain(source: &Blobs, layer: &Descriptor) -> Result<()> {
    let blob = source.blob(layer).await?;
    let mut reader = BlobReader::new(blob, &Handle::current());
    let drain = move || std::io::copy(&mut reader, &mut std::io::sink());
    tokio::task::spawn_blocking(drain)
        .await?
        .context("read the blob")?;
    Ok(())
}

/// Streams a blob and verifies its chunks. Faults of chunks come back with their chunk, for the path.
async fn chunks(
    source: &Blobs,
    layer: &Descriptor,
    map: &ChunkMap,
    id: BlobId,
    findings: &mut Findings,
    reporter: &Reporter,
) -> Result<Vec<(ChunkId, Fault)>> {
    let contents = Contents::of(map, id, layer);
    findings.blobs += 1;
    findings.bytes = findings.bytes.saturating_add(layer.size);
    findings.chunks += contents.chunks();
    let stream = match source.blob(layer).await {
        Ok(stream) => stream,
        Err(error) => {
            findings.add(Fault::from_error(
                &layer.digest,
                &anyhow::Error::from(error),
            ));
            return Ok(Vec::new());
        }
    };
    let handle = Handle::current();
    let reader = BlobReader::new(stream, &handle);
    let again = source.clone();
    let digest = layer.digest;
    let reread = move |range| Ok(handle.block_on(again.read_range(&digest, range))?.into());
    reporter.bytes(0, Some(layer.size));
    let checked = tokio::task::spawn_blocking(move || blob::verify(contents, reader, &reread));
    let verdict = checked.await?;
    reporter.bytes(layer.size, Some(layer.size));
    for fault in verdict.faults {
        findings.add(fault);
    }
    Ok(verdict.wrong)
}

/// The blob's own tables must be sound and say what the metadata says.
async fn tables(
    source: &Blobs,
    layer: &Descriptor,
    map: &ChunkMap,
    id: BlobId,
    info: &BlobInfo,
    nydus: &Nydus,
) -> Result<()> {
    let Some(range) = info.toc else {
        // Blobs of older writers have no table of contents; their chunk table was read with the
        // metadata, if it was needed.
        return Ok(());
    };
    let read = async |start: u64, end: u64| {
        let bytes = source.read_range(&layer.digest, start..end).await;
        bytes.with_context(|| format!("read bytes {start}..{end}"))
    };
    let tail = read(layer.size.saturating_sub(TOC_TAIL_BYTES), layer.size).await?;
    let toc = Toc::decode(&tail, layer.size, &TocLimits::default())?;
    if toc.sha256 != range.sha256 || toc.bytes != range.bytes {
        anyhow::bail!("the table of contents is not the one that the metadata names");
    }
    let stored = async |entry: &TocEntry, more: u64| {
        let end = entry
            .offset
            .0
            .saturating_add(entry.stored_bytes)
            .saturating_add(more);
        read(entry.offset.0, end).await
    };
    let chunk_info = toc.chunk_info()?;
    let table = stored(chunk_info, TABLE_HEADER_BYTES).await?;
    let digests = toc.chunk_digests()?;
    let digests = digests.decode(&stored(digests, 0).await?)?;
    let table = ChunkTable::decode(&table, &digests, info, &TableLimits::default())?;
    agree(map, id, &table, &nydus.chunk_indexes)
}

/// Every chunk that the metadata places in this blob is in the blob's table, at the same place.
fn agree(map: &ChunkMap, id: BlobId, table: &ChunkTable, indexes: &[u32]) -> Result<()> {
    for (chunk, index) in map.chunks.iter().zip(indexes) {
        let Some(extent) = map.extent(chunk.extent).filter(|extent| extent.blob == id) else {
            continue;
        };
        let listed = table.chunks.get(usize::try_from(*index)?);
        let same = |other: &Chunk| {
            let stored = table.extents.get(other.extent.index());
            other.digest == chunk.digest
                && other.bytes == chunk.bytes
                && other.place == chunk.place
                && other.offset == chunk.offset
                && stored.is_some_and(|stored| {
                    stored.offset == extent.offset && stored.stored_bytes == extent.stored_bytes
                })
        };
        if !listed.is_some_and(same) {
            anyhow::bail!("the chunk table says of chunk {index} something else than the metadata");
        }
    }
    Ok(())
}

/// Says of each fault which file has it. One walk for all, and only when there are faults.
fn name_files(tree: &Tree, wrong: Vec<(ChunkId, Fault)>, findings: &mut Findings) {
    let mut paths: BTreeMap<ChunkId, Option<String>> =
        wrong.iter().map(|(chunk, _)| (*chunk, None)).collect();
    if !paths.is_empty() {
        for (path, node) in tree.walk() {
            if let Kind::File { chunks, .. } = &tree.node(node).kind {
                for chunk in chunks {
                    if let Some(known @ None) = paths.get_mut(chunk) {
                        *known = Some(String::from_utf8_lossy(&path).into_owned());
                    }
                }
            }
        }
    }
    for (chunk, fault) in wrong {
        let path = paths.get(&chunk).cloned().flatten();
        findings.add(Fault { path, ..fault });
    }
}
