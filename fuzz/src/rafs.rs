//! RAFS bootstraps and blobs.

use draught_digest::Algorithm;
use draught_rafs::blob::{
    BlobFeatures, BlobInfo, ChunkInfoRange, ChunkTable, TOC_TAIL_BYTES, TableLimits, Toc, TocEntry,
    TocLimits,
};
use draught_rafs::bootstrap::{Limits, Reader};
use draught_tree::{ChunkMap, Compression, Kind};

/// A chunk-info header follows its table.
const HEADER_BYTES: u64 = 4096;

/// A map whose every chunk lies in its extent and its device, and whose extents lie in their blobs.
pub(crate) fn check_map(map: &ChunkMap) {
    for extent in &map.extents {
        let blob = map.blob(extent.blob).expect("an extent names a blob");
        let end = extent.offset.0 + u64::from(extent.stored_bytes);
        assert!(end <= blob.stored_bytes, "an extent leaves its blob");
    }
    for chunk in &map.chunks {
        let extent = map.extent(chunk.extent).expect("a chunk names an extent");
        let blob = map.blob(extent.blob).expect("an extent names a blob");
        let end = chunk.offset.0 + u64::from(chunk.bytes);
        assert!(
            end <= u64::from(extent.decoded_bytes),
            "a chunk leaves its extent"
        );
        assert!(
            chunk.bytes > 0 && chunk.place.0 % 4096 == 0,
            "a chunk is misplaced"
        );
        assert!(
            chunk.place.0 + u64::from(chunk.bytes) <= blob.device_bytes,
            "a chunk leaves its device"
        );
    }
}

/// A bootstrap that is accepted has a map and a tree that hold together.
pub(crate) fn bootstrap(data: &[u8]) {
    let mut limits = Limits {
        needed_bytes_max: 1 << 20,
        prefetch_max: 1 << 10,
        ..Limits::default()
    };
    limits.metadata.names_max = 1 << 12;
    limits.metadata.directory_bytes_max = 1 << 20;
    limits.metadata.chunk_refs_max = 1 << 12;
    limits.metadata.loose_bytes_max = 1 << 20;
    limits.tables.chunks_max = 1 << 12;
    let Ok(mut reader) = Reader::open(data, None, &limits) else {
        return;
    };
    for need in reader.needs().to_vec() {
        let bytes = need
            .range
            .end
            .checked_sub(need.range.start)
            .expect("a range");
        assert!(
            bytes <= limits.needed_bytes_max,
            "it wants more than the limit"
        );
        let zeros = vec![0; usize::try_from(bytes).expect("within the limit")];
        if reader.give(&need, zeros).is_err() {
            return;
        }
    }
    let Ok(read) = reader.finish() else { return };
    check_map(&read.tree.map);
    assert_eq!(read.chunk_indexes.len(), read.tree.map.chunks.len());
    for (_, node) in read.tree.walk() {
        if let Kind::File { bytes, chunks } = &read.tree.node(node).kind {
            let chunks = chunks
                .iter()
                .map(|id| read.tree.map.chunk(*id).expect("a chunk"));
            let whole: u64 = chunks.map(|chunk| u64::from(chunk.bytes)).sum();
            assert_eq!(whole, *bytes, "a file's chunks are not its size");
        }
    }
}

/// A blob whose table of contents and chunk table are accepted has chunks that lie in it.
pub(crate) fn blob(data: &[u8]) {
    let blob_bytes = data.len() as u64;
    let tail = data
        .len()
        .saturating_sub(usize::try_from(TOC_TAIL_BYTES).expect("small"));
    let limits = TocLimits {
        entry_bytes_max: 1 << 20,
    };
    let Ok(toc) = Toc::decode(&data[tail..], blob_bytes, &limits) else {
        return;
    };
    let stored = |entry: &TocEntry, more: u64| {
        let end = entry
            .offset
            .0
            .checked_add(entry.stored_bytes)?
            .checked_add(more)?;
        data.get(usize::try_from(entry.offset.0).ok()?..usize::try_from(end).ok()?)
    };
    let (Ok(info), Ok(digests)) = (toc.chunk_info(), toc.chunk_digests()) else {
        return;
    };
    let (Some(table), Some(digests)) = (stored(info, HEADER_BYTES), stored(digests, 0)) else {
        return;
    };
    let chunks = u32::try_from(digests.len() / 32).expect("within the limit");
    for features in [
        BlobFeatures::CHUNK_INFO_V2,
        BlobFeatures::CHUNK_INFO_V2.union(BlobFeatures::BATCH),
    ] {
        let info = BlobInfo {
            digest: None,
            features: features.union(BlobFeatures::ALIGNED),
            compression: Compression::Zstd,
            digester: Algorithm::Blake3,
            chunk_bytes_max: 1 << 20,
            chunks,
            stored_bytes: blob_bytes,
            device_bytes: 1 << 30,
            chunk_info: ChunkInfoRange {
                offset: info.offset,
                stored_bytes: info.stored_bytes,
                decoded_bytes: info.decoded_bytes,
                compression: info.compression,
            },
            toc: None,
        };
        let limits = TableLimits {
            chunks_max: 1 << 12,
        };
        if let Ok(table) = ChunkTable::decode(table, digests, &info, &limits) {
            assert!(
                table.chunks.len() as u64 == u64::from(chunks),
                "chunks out of nothing"
            );
            for extent in &table.extents {
                assert!(extent.offset.0 + u64::from(extent.stored_bytes) <= blob_bytes);
            }
        }
    }
}
