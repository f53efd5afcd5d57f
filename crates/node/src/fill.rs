//! Filling: stored bytes in, verified blocks on devices out.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use draught_codec::Decoder;
use draught_fill::{Failure, FeedChunk, FeedExtent, FeedMap};
use draught_store::{Device, WriteError};
use draught_tree::BLOCK_BYTES;

/// Decoded bytes that are collected before they are written: fewer, larger writes.
const WRITE_BYTES: usize = 1 << 20;

/// What a fill did not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfilled {
    /// Index of the extent in the feed's map.
    pub(crate) extent: u32,
    /// What to tell the planner.
    pub(crate) failure: Failure,
    /// What to tell people.
    pub(crate) why: String,
}

/// Stored bytes of a blob.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    /// Where in the blob they begin.
    pub(crate) start: u64,
    pub(crate) bytes: &'a [u8],
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
    device: Option<Arc<Device>>,
    start: u64,
    bytes: Vec<u8>,
    extents: Vec<u32>,
}

thread_local! {
    /// Decoders and buffers are kept: setting up a zstd context costs more than decoding a small extent.
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// Decodes and verifies extents of a feed and writes what is missing of their chunks. `devices` are the feed's;
/// `filled` is told, as soon as it is so, that extents are there, in ranges. Gives the extents that could
/// not be filled.
pub(crate) fn fill(
    devices: &[Arc<Device>],
    map: &FeedMap,
    extents: Range<u32>,
    stored: Stored<'_>,
    mut filled: impl FnMut(Range<u32>),
) -> Vec<Unfilled> {
    WORKSPACE.with_borrow_mut(|workspace| {
        let Workspace {
            decoder,
            decoded,
            run,
        } = workspace;
        run.clear();
        let mut filling = Filling {
            devices,
            unfilled: Vec::new(),
            told: extents.start,
        };
        for index in extents.clone() {
            let Some(extent) = map.extent(index) else {
                continue;
            };
            let chunks = map.chunks_of(extent);
            if chunks.iter().all(|chunk| filling.is_present(chunk)) {
                continue;
            }
            if let Err(why) = decode(decoder, extent, chunks, stored, decoded) {
                let failure = Failure::Corrupt;
                filling.fail(index, failure, why);
                continue;
            }
            for chunk in chunks {
                if filling.is_present(chunk) {
                    continue;
                }
                let Some(device) = filling.device(chunk) else {
                    let why = "the image has no such device".to_owned();
                    filling.fail(index, Failure::Device, why);
                    break;
                };
                if !run.takes(&device, chunk.place) {
                    filling.write(run);
                    filling.tell(index, &mut filled);
                }
                let content = content(chunk, decoded).unwrap_or_default();
                run.push(index, device, chunk, content);
            }
        }
        filling.write(run);
        filling.tell(extents.end, &mut filled);
        filling.unfilled
    })
}

struct Filling<'a> {
    devices: &'a [Arc<Device>],
    /// Sorted by extent.
    unfilled: Vec<Unfilled>,
    /// The extent up to which was told what is filled.
    told: u32,
}

impl Filling<'_> {
    fn device(&self, chunk: &FeedChunk) -> Option<Arc<Device>> {
        self.devices.get(usize::from(chunk.device)).cloned()
    }

    fn is_present(&self, chunk: &FeedChunk) -> bool {
        let device = self.devices.get(usize::from(chunk.device));
        device.is_some_and(|device| device.is_present(chunk.blocks()))
    }

    fn fail(&mut self, extent: u32, failure: Failure, why: String) {
        let at = self.unfilled.partition_point(|one| one.extent < extent);
        // Its beginning may have failed before.
        if self.unfilled.get(at).is_none_or(|one| one.extent != extent) {
            let one = Unfilled {
                extent,
                failure,
                why,
            };
            self.unfilled.insert(at, one);
        }
    }

    /// Tells which extents below `end` are filled; all that they have was written.
    fn tell(&mut self, end: u32, filled: &mut impl FnMut(Range<u32>)) {
        let mut start = std::mem::replace(&mut self.told, end);
        let failed = self.unfilled.iter().map(|one| one.extent);
        for failed in failed
            .filter(|failed| (start..end).contains(failed))
            .collect::<Vec<_>>()
        {
            if start < failed {
                filled(start..failed);
            }
            start = failed + 1;
        }
        if start < end {
            filled(start..end);
        }
    }

    /// Writes what was collected and marks it present.
    fn write(&mut self, run: &mut Run) {
        let Some(device) = run.device.take() else {
            return;
        };
        debug_assert!(
            run.end().is_multiple_of(BLOCK_BYTES),
            "runs are whole blocks"
        );
        let written = device.fill(run.start, &run.bytes);
        if let Err(error) = written {
            let failure = match error {
                WriteError::NoSpace { .. } => Failure::NoSpace,
                _ => Failure::Device,
            };
            for extent in &run.extents {
                self.fail(*extent, failure, error.to_string());
            }
        }
        run.clear();
    }
}

/// Decodes an extent and verifies each of its chunks.
fn decode(
    decoder: &mut Decoder,
    extent: &FeedExtent,
    chunks: &[FeedChunk],
    stored: Stored<'_>,
    decoded: &mut Vec<u8>,
) -> Result<(), String> {
    let Range { start, end } = extent.stored();
    let index = |at: u64| usize::try_from(at.checked_sub(stored.start)?).ok();
    let stored = index(start)
        .zip(index(end))
        .and_then(|(start, end)| stored.bytes.get(start..end))
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
fn content<'a>(chunk: &FeedChunk, decoded: &'a [u8]) -> Option<&'a [u8]> {
    let start = usize::try_from(chunk.offset).ok()?;
    let end = start.checked_add(usize::try_from(chunk.bytes).ok()?)?;
    decoded.get(start..end)
}

impl Run {
    fn clear(&mut self) {
        self.device = None;
        self.bytes.clear();
        self.extents.clear();
    }

    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Whether what belongs at `place` of that device is to be written together with what is here. Only what
    /// lies next to it: in a gap may be another image's chunk that could not be verified.
    fn takes(&self, device: &Arc<Device>, place: u64) -> bool {
        self.device.as_ref().is_none_or(|own| {
            Arc::ptr_eq(own, device) && self.bytes.len() < WRITE_BYTES && place == self.end()
        })
    }

    /// Appends a chunk, padded with zeros to whole blocks.
    fn push(&mut self, extent: u32, device: Arc<Device>, chunk: &FeedChunk, content: &[u8]) {
        if self.device.is_none() {
            self.start = chunk.place;
            self.device = Some(device);
        }
        if self.extents.last() != Some(&extent) {
            self.extents.push(extent);
        }
        self.bytes.extend_from_slice(content);
        let len = chunk.blocks().end.saturating_sub(self.start);
        self.bytes
            .resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
    }
}

#[cfg(test)]
mod tests {
    use draught_digest::Digest;
    use draught_store::{DeviceKey, Store};
    use draught_tree::Compression;

    use super::*;

    /// A map of extents that are stored as they are, of one chunk each, at these places of these devices.
    fn map(places: &[(u16, u64)], content: &[u8]) -> FeedMap {
        let (mut extents, mut chunks) = (Vec::new(), Vec::new());
        let bytes = u32::try_from(content.len()).unwrap();
        for (index, (device, place)) in (0_u32..).zip(places) {
            chunks.push(FeedChunk {
                device: *device,
                place: *place,
                bytes,
                offset: 0,
                digest: Digest::sha256(content),
            });
            extents.push(FeedExtent {
                blob_offset: u64::from(index * bytes),
                stored_bytes: bytes,
                decoded_bytes: bytes,
                compression: Compression::None,
                chunks: index..index + 1,
            });
        }
        FeedMap::from_parts(extents, chunks).unwrap()
    }

    fn devices(scratch: &tempfile::TempDir, bytes: u64) -> (Store, Vec<Arc<Device>>) {
        let store = Store::open(scratch.path(), "boot").unwrap();
        let open = |key| store.device(&DeviceKey([key; 32]), bytes).unwrap();
        let devices = vec![open(0), open(1)];
        (store, devices)
    }

    #[test]
    fn chunks_go_to_their_devices_and_what_is_done_is_told_at_once() {
        let scratch = tempfile::tempdir().unwrap();
        let (_store, devices) = devices(&scratch, 4 * BLOCK_BYTES);
        let map = map(&[(0, 0), (0, 4096), (1, 8192), (0, 12288)], &[7; 4096]);
        let mut told = Vec::new();
        let stored = Stored {
            start: 0,
            bytes: &[7; 4 * 4096],
        };
        let unfilled = fill(&devices, &map, 0..4, stored, |extents| {
            assert!(extents.clone().all(|extent| {
                let chunk = &map.chunks()[extent as usize];
                devices[usize::from(chunk.device)].is_present(chunk.blocks())
            }));
            told.push(extents);
        });
        assert_eq!((unfilled, told), (vec![], vec![0..2, 2..3, 3..4]));
        assert_eq!(devices[0].missing(0..16384), vec![8192..12288]);
        assert_eq!(devices[1].bytes_present(), 4096);
    }

    #[test]
    fn an_extent_that_is_not_verified_stays_absent_between_two_that_are() {
        let scratch = tempfile::tempdir().unwrap();
        let (_store, devices) = devices(&scratch, 3 * 4096);
        let map = map(&[(0, 0), (0, 4096), (0, 8192)], &[7; 4096]);
        let mut bytes = vec![7; 3 * 4096];
        bytes[5000] = 8;
        let mut told = Vec::new();
        let stored = Stored {
            start: 0,
            bytes: &bytes,
        };
        let unfilled = fill(&devices, &map, 0..3, stored, |extents| told.push(extents));
        let failed: Vec<_> = unfilled
            .iter()
            .map(|one| (one.extent, one.failure))
            .collect();
        assert_eq!(failed, [(1, Failure::Corrupt)]);
        assert_eq!(
            told.iter().flat_map(Clone::clone).collect::<Vec<_>>(),
            [0, 2]
        );
        assert_eq!(devices[0].missing(0..3 * 4096), vec![4096..8192]);
    }

    #[test]
    fn what_is_there_is_neither_decoded_nor_written() {
        let scratch = tempfile::tempdir().unwrap();
        let (_store, devices) = devices(&scratch, 2 * 4096);
        let map = map(&[(0, 0), (0, 4096)], &[7; 4096]);
        devices[0].write(0, &[7; 4096]).unwrap();
        devices[0].mark_present(0..4096).unwrap();
        // Nothing came for the first.
        let stored = Stored {
            start: 4096,
            bytes: &[7; 4096],
        };
        let mut told = Vec::new();
        let unfilled = fill(&devices, &map, 0..2, stored, |extents| told.push(extents));
        assert_eq!(
            (unfilled.len(), &told[..]),
            (0, std::slice::from_ref(&(0..2)))
        );
    }
}
