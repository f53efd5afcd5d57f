//! In which order the chunks of a file may lie in a blob.
//!
//! nydusd (2.2 for certain) reads two chunks that follow each other in a file with one request if they
//! lie in one blob in that order and little lies between them. It then takes what lies between for
//! content of the file: wrong bytes and no error, even with verification on. Its own packer makes such
//! images. Ours does not: of chunks that follow each other in a file, the second lies right behind the
//! first, or before it, or in another blob, or at least [`GAP_BYTES`] away.
//!
//! This holds for the chunks of dictionaries too, whoever wrote their blobs.
//!
//! Where nothing else helps, a *fence* is put between them: incompressible bytes that no file refers to.

use draught_digest::Digest;
use draught_tree::{BLOCK_BYTES, ChunkId, ChunkMap};

/// More than nydusd reads over: it merges over gaps of 1/128 of its request size, which is 1 MiB, stored or
/// decoded.
pub(super) const GAP_BYTES: u64 = (8 << 10) + 1;

/// Size of a fence: blocks enough for the gap.
pub(super) const FENCE_BYTES: usize = 12 << 10;

/// Where the chunks of the blob that is being written lie relative to each other.
#[derive(Debug)]
pub(super) struct Order {
    /// The first chunk of that blob.
    first: u32,
    /// The chunks that follow a fence, ascending.
    fences: Vec<u32>,
}

impl Order {
    /// A blob whose first chunk gets this id.
    pub(super) fn new(first: u32) -> Self {
        Self {
            first,
            fences: Vec::new(),
        }
    }

    /// Notes that a fence lies before the chunk that will have this id.
    pub(super) fn fence(&mut self, id: u32) {
        self.fences.push(id);
    }

    /// Whether `next` may follow `before` in a file. `map` has the chunks of all earlier blobs.
    pub(super) fn may_follow(&self, map: &ChunkMap, before: ChunkId, next: ChunkId) -> bool {
        match (before.0 >= self.first, next.0 >= self.first) {
            // Right behind, or before: ids ascend within the blob.
            (true, true) if next.0 <= before.0.saturating_add(1) => true,
            (true, true) => self.fenced(before.0, next.0),
            (false, false) => may_follow_earlier(map, before, next),
            _ => true,
        }
    }

    /// Whether a fence lies between two chunks of the blob.
    fn fenced(&self, before: u32, next: u32) -> bool {
        let at = self.fences.partition_point(|fence| *fence <= before);
        self.fences.get(at).is_some_and(|fence| *fence <= next)
    }
}

/// Whether two chunks of earlier blobs lie in different ones, right behind each other, in the other order, or
/// far apart. Not every chunk of a dictionary's blob is in the map, so ids don't tell what lies between.
fn may_follow_earlier(map: &ChunkMap, before: ChunkId, next: ChunkId) -> bool {
    let place = |id: ChunkId| {
        let chunk = map.chunk(id)?;
        Some((chunk, map.extent(chunk.extent)?))
    };
    let (Some((before, stored_before)), Some((next, stored_next))) = (place(before), place(next))
    else {
        return false;
    };
    if stored_before.blob != stored_next.blob {
        return true;
    }
    let stored_end = stored_before
        .offset
        .0
        .saturating_add(stored_before.stored_bytes.into());
    let end = before.place.0.saturating_add(before.bytes.into());
    let place_end = end.next_multiple_of(BLOCK_BYTES);
    let same_extent = before.extent == next.extent;
    let is_before = next.place <= before.place && stored_next.offset <= stored_before.offset;
    let is_behind = next.place.0 == place_end
        && if same_extent {
            next.offset.0 == before.offset.0.saturating_add(before.bytes.into())
        } else {
            stored_next.offset.0 == stored_end
        };
    let is_far = stored_next.offset.0.saturating_sub(stored_end) >= GAP_BYTES
        && next.place.0.saturating_sub(end) >= GAP_BYTES;
    is_before || is_behind || is_far
}

/// Fills `out` with bytes that don't compress, others for every `id`, the same every time.
pub(super) fn fill_fence(id: u32, out: &mut [u8]) {
    for (index, piece) in (0_u32..).zip(out.chunks_mut(32)) {
        let mut seed = *b"draught fence\0\0\0\0\0\0\0\0";
        if let Some(to) = seed.last_chunk_mut::<8>() {
            *to = (u64::from(id) << 32 | u64::from(index)).to_le_bytes();
        }
        let noise = Digest::blake3(&seed);
        for (to, from) in piece.iter_mut().zip(noise.as_bytes()) {
            *to = *from;
        }
    }
}

#[cfg(test)]
mod tests {
    use draught_tree::{
        Blob, BlobId, BlobOffset, Chunk, ChunkOffset, Compression, DeviceOffset, Extent,
    };

    use super::*;

    /// Two earlier blobs of three chunks each; in each, the third is far from the others.
    fn map() -> ChunkMap {
        let mut map = ChunkMap::default();
        for blob in 0..2 {
            let digest = Digest::sha256(&[blob]);
            map.push_blob(Blob {
                digest,
                stored_bytes: 0,
                device_bytes: 0,
            })
            .unwrap();
            for (offset, stored_bytes, place) in [(0, 100, 0), (100, 100, 4096), (9000, 10, 20_000)]
            {
                let extent = map.push_extent(Extent {
                    blob: BlobId(blob.into()),
                    offset: BlobOffset(offset),
                    stored_bytes,
                    decoded_bytes: 4096,
                    compression: Compression::Zstd,
                });
                map.push_chunk(Chunk {
                    digest,
                    extent: extent.unwrap(),
                    offset: ChunkOffset(0),
                    bytes: 4096,
                    place: DeviceOffset(place),
                });
            }
        }
        map
    }

    #[test]
    fn chunks_follow_each_other_only_where_nothing_is_read_over() {
        let mut order = Order::new(6);
        order.fence(10);
        let map = map();
        for (before, next, expect) in [
            // In an earlier blob: behind, before, itself, far, and the first two of these are near.
            (0, 1, true),
            (1, 0, true),
            (1, 1, true),
            (0, 2, true),
            // In different blobs.
            (0, 5, true),
            (0, 6, true),
            (7, 0, true),
            // In the one that is written: 6 7 8 9 | 10 11 12
            (6, 7, true),
            (6, 8, false),
            (8, 6, true),
            (9, 10, true),
            (6, 10, true),
            (9, 12, true),
            (10, 12, false),
        ] {
            let got = order.may_follow(&map, ChunkId(before), ChunkId(next));
            assert_eq!(got, expect, "{before} {next}");
        }
        // Were the third one as near as the second:
        let mut near = map.clone();
        near.extents[2].offset = BlobOffset(300);
        assert!(!order.may_follow(&near, ChunkId(0), ChunkId(2)));
    }

    #[test]
    fn what_is_missing_in_the_map_of_a_dictionary_lies_between() {
        let order = Order::new(6);
        // The first two chunks of the first blob, as if one between them were nobody's.
        for (offset, place, expect) in [
            (100, 4096, true),
            (100, 8192, false),
            (150, 8192, false),
            (9000, 8192, false),
            (9000, 20_000 & !4095, true),
        ] {
            let mut map = map();
            map.extents[1].offset = BlobOffset(offset);
            map.chunks[1].place = DeviceOffset(place);
            let got = order.may_follow(&map, ChunkId(0), ChunkId(1));
            assert_eq!(got, expect, "{offset} {place}");
            assert!(order.may_follow(&map, ChunkId(1), ChunkId(0)));
        }
        // In one batch.
        for (offset, expect) in [(4096, true), (8192, false)] {
            let mut map = map();
            map.chunks[1].extent = map.chunks[0].extent;
            map.chunks[1].offset = ChunkOffset(offset);
            let got = order.may_follow(&map, ChunkId(0), ChunkId(1));
            assert_eq!(got, expect, "{offset}");
        }
    }

    #[test]
    fn fences_do_not_compress_and_differ() {
        let (mut one, mut other) = (vec![0; FENCE_BYTES], vec![0; FENCE_BYTES]);
        fill_fence(1, &mut one);
        fill_fence(2, &mut other);
        assert_ne!(one, other);
        let mut out = Vec::new();
        let mut encoder = draught_codec::Encoder::new(Compression::Zstd, 19).unwrap();
        assert_eq!(encoder.encode(&one, &mut out).unwrap(), Compression::None);
    }
}
