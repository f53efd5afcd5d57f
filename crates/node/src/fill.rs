//! Filling: stored bytes in, verified blocks on a device out.

use std::cell::RefCell;
use std::ops::Range;

use draught_codec::Decoder;
use draught_fill::{DeviceMap, Failure, MapChunk, MapExtent};
use draught_store::{Device, WriteError};
use draught_tree::BLOCK_BYTES;

/// Decoded bytes that are collected before they are written: fewer, larger writes.
const WRITE_BYTES: usize = 1 << 20;

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
            let place = map.place_of(extent);
            if !run.extents.is_empty() && (place.start != run.end() || run.is_long()) {
                run.write(device, &mut unfilled);
            }
            run.push(index, &place, chunks, decoded);
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

    fn is_long(&self) -> bool {
        self.bytes.len() >= WRITE_BYTES
    }

    /// Appends an extent's chunks, each padded with zeros to whole blocks.
    fn push(&mut self, index: u32, place: &Range<u64>, chunks: &[MapChunk], decoded: &[u8]) {
        if self.extents.is_empty() {
            self.start = place.start;
        }
        self.extents.push(index);
        for chunk in chunks {
            // Blocks between two chunks belong to chunks that this image does not have.
            self.pad_to(chunk.place);
            self.bytes
                .extend_from_slice(content(chunk, decoded).unwrap_or_default());
            self.pad_to(chunk.blocks().end);
        }
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
            unfilled.extend(self.extents.iter().map(|extent| Unfilled {
                extent: *extent,
                failure,
                why: why.clone(),
            }));
        }
        self.clear();
    }
}
