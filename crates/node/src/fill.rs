//! Filling: stored bytes in, verified blocks on a device out.

use std::cell::RefCell;
use std::ops::Range;

use draught_codec::Decoder;
use draught_fill::{DeviceMap, Failure, MapChunk, MapExtent};
use draught_store::{Device, WriteError};
use draught_tree::BLOCK_BYTES;

/// Decoded bytes that are collected before they are written: fewer, larger writes.
const WRITE_BYTES: usize = 1 << 20;
/// Bytes between two chunks of one extent that are written as zeros rather than apart. They belong to chunks that this
/// image does not have. How many there are is up to the image: a run must not grow by all of them.
const GAP_BYTES_MAX: u64 = 64 << 10;

/// What a fill did not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfilled {
    /// Index of the extent in the device's map.
    pub(crate) extent: u32,
    /// What to tell the planner.
    pub(crate) failure: Failure,
    /// What to tell people.
    pub(crate) why: String,
}

#[derive(Debug, Default)]
struct Workspace {
    decoder: Decoder,
    decoded: Vec<u8>,
    run: Run,
}

/// Blocks that lie next to each other on a device and wait to be written together.
#[derive(Debug, Default)]
struct Run {
    start: u64,
    bytes: Vec<u8>,
    extents: Vec<u32>,
}

thread_local! {
    /// Decoders and buffers are kept: setting up a zstd context costs more than decoding a small extent.
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// Decodes and verifies extents of a device and writes them. `stored` are the blob's bytes from
/// `stored_start` on. Gives the extents that could not be filled; all others are present.
pub(crate) fn fill(
    device: &Device,
    map: &DeviceMap,
    extents: Range<u32>,
    stored_start: u64,
    stored: &[u8],
) -> Vec<Unfilled> {
    WORKSPACE.with_borrow_mut(|workspace| {
        let Workspace {
            decoder,
            decoded,
            run,
        } = workspace;
        let mut unfilled = Vec::new();
        run.clear();
        for index in extents {
            let Some(extent) = map.extent(index) else {
                continue;
            };
            let chunks = map.chunks_of(extent);
            if let Err(why) = decode(decoder, extent, chunks, stored_start, stored, decoded) {
                unfilled.push(Unfilled {
                    extent: index,
                    failure: Failure::Corrupt,
                    why,
                });
                continue;
            }
            for chunk in chunks {
                if !run.takes(index, chunk.place) {
                    run.write(device, &mut unfilled);
                }
                run.push(index, chunk, content(chunk, decoded).unwrap_or_default());
            }
        }
        run.write(device, &mut unfilled);
        unfilled
    })
}

/// Decodes an extent and verifies each of its chunks.
fn decode(
    decoder: &mut Decoder,
    extent: &MapExtent,
    chunks: &[MapChunk],
    stored_start: u64,
    stored: &[u8],
    decoded: &mut Vec<u8>,
) -> Result<(), String> {
    let Range { start, end } = extent.stored();
    let index = |at: u64| usize::try_from(at.checked_sub(stored_start)?).ok();
    let stored = index(start)
        .zip(index(end))
        .and_then(|(start, end)| stored.get(start..end))
        .ok_or_else(|| format!("bytes {start}..{end} of the blob did not come"))?;
    decoded.clear();
    decoder
        .decode(extent.compression, stored, extent.decoded_bytes, decoded)
        .map_err(|error| format!("bytes {start}..{end} of the blob can't be decoded: {error}"))?;
    for chunk in chunks {
        let content = content(chunk, decoded);
        if !content.is_some_and(|content| chunk.digest.verifies(content)) {
            let digest = chunk.digest;
            return Err(format!(
                "bytes {start}..{end} of the blob do not hold chunk {digest}"
            ));
        }
    }
    Ok(())
}

/// A chunk's part of its decoded extent.
fn content<'a>(chunk: &MapChunk, decoded: &'a [u8]) -> Option<&'a [u8]> {
    let start = usize::try_from(chunk.offset).ok()?;
    let end = start.checked_add(usize::try_from(chunk.bytes).ok()?)?;
    decoded.get(start..end)
}

impl Run {
    fn clear(&mut self) {
        self.bytes.clear();
        self.extents.clear();
    }

    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Whether what belongs at `place`, of that extent, is to be written together with what is here.
    fn takes(&self, extent: u32, place: u64) -> bool {
        // Between two extents may lie one that could not be verified: it must not appear as zeros.
        let gap_max = if self.extents.last() == Some(&extent) {
            GAP_BYTES_MAX
        } else {
            0
        };
        let gap = place.checked_sub(self.end());
        self.extents.is_empty()
            || (self.bytes.len() < WRITE_BYTES && gap.is_some_and(|gap| gap <= gap_max))
    }

    /// Appends a chunk, padded with zeros to whole blocks.
    fn push(&mut self, extent: u32, chunk: &MapChunk, content: &[u8]) {
        if self.extents.is_empty() {
            self.start = chunk.place;
        }
        if self.extents.last() != Some(&extent) {
            self.extents.push(extent);
        }
        self.pad_to(chunk.place);
        self.bytes.extend_from_slice(content);
        self.pad_to(chunk.blocks().end);
    }

    fn pad_to(&mut self, place: u64) {
        let len = usize::try_from(place.saturating_sub(self.start)).unwrap_or(usize::MAX);
        debug_assert!(
            len >= self.bytes.len(),
            "chunks come in the order of their places"
        );
        self.bytes.resize(len, 0);
    }

    /// Writes what was collected and marks it present.
    fn write(&mut self, device: &Device, unfilled: &mut Vec<Unfilled>) {
        if self.extents.is_empty() {
            return;
        }
        let range = self.start..self.end();
        debug_assert!(range.end % BLOCK_BYTES == 0, "runs are whole blocks");
        let written = device
            .write(self.start, &self.bytes)
            .and_then(|()| device.mark_present(range));
        if let Err(error) = written {
            let failure = match error {
                WriteError::NoSpace { .. } => Failure::NoSpace,
                _ => Failure::Device,
            };
            let why = error.to_string();
            for extent in &self.extents {
                // Its beginning may have been in the run before.
                if unfilled.last().is_none_or(|last| last.extent != *extent) {
                    unfilled.push(Unfilled {
                        extent: *extent,
                        failure,
                        why: why.clone(),
                    });
                }
            }
        }
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use draught_digest::Digest;
    use draught_store::{DeviceKey, Store};
    use draught_tree::Compression;

    use super::*;

    /// A map of extents that are stored as they are, each with chunks at these places.
    fn map(bytes: u64, places: &[&[u64]], content: &[u8]) -> DeviceMap {
        let (mut extents, mut chunks) = (Vec::new(), Vec::new());
        for (index, places) in (0_u64..).zip(places) {
            let start = u32::try_from(chunks.len()).unwrap();
            for place in *places {
                chunks.push(MapChunk {
                    place: *place,
                    bytes: u32::try_from(content.len()).unwrap(),
                    offset: 0,
                    digest: Digest::sha256(content),
                });
            }
            extents.push(MapExtent {
                blob_offset: index * content.len() as u64,
                stored_bytes: u32::try_from(content.len()).unwrap(),
                decoded_bytes: u32::try_from(content.len()).unwrap(),
                compression: Compression::None,
                chunks: start..u32::try_from(chunks.len()).unwrap(),
            });
        }
        DeviceMap::from_parts(bytes, extents, chunks).unwrap()
    }

    #[test]
    fn chunks_of_one_extent_may_lie_any_distance_apart() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::open(scratch.path(), "boot").unwrap();
        let bytes = 64 << 30;
        let device = store.device(&DeviceKey([1; 32]), bytes).unwrap();
        let far = bytes - 2 * BLOCK_BYTES;
        let map = map(bytes, &[&[0, 8192, far - (1 << 30)], &[far]], &[7; 5000]);
        assert_eq!(map.chunks().len(), 4);
        let unfilled = fill(&device, &map, 0..1, 0, &[7; 5000]);
        assert_eq!(unfilled, []);
        for chunk in map.chunks_of(&map.extents()[0]) {
            assert!(device.is_present(chunk.blocks()));
        }
        assert!(device.bytes_present() < 100_000);
    }

    #[test]
    fn an_extent_that_is_not_verified_stays_absent_between_two_that_are() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::open(scratch.path(), "boot").unwrap();
        let device = store.device(&DeviceKey([1; 32]), 3 * 4096).unwrap();
        let map = map(3 * 4096, &[&[0], &[4096], &[8192]], &[7; 4096]);
        let mut stored = vec![7; 3 * 4096];
        stored[5000] = 8;
        let unfilled = fill(&device, &map, 0..3, 0, &stored);
        let failed: Vec<_> = unfilled
            .iter()
            .map(|one| (one.extent, one.failure))
            .collect();
        assert_eq!(failed, [(1, Failure::Corrupt)]);
        assert_eq!(device.missing(0..3 * 4096), vec![4096..8192]);
    }
}
