//! Who reads on, and who reads everywhere: what is fetched before it is asked for.

use std::ops::Range;

use crate::feed_map::FeedMap;
use crate::settings::Settings;

/// Stored bytes of a region, the unit in which it is noticed that somebody reads everywhere.
const REGION_BYTES: u64 = 1 << 20;
/// Extents of a region below which nothing can be told from how many of them are read.
const REGION_EXTENTS_MIN: u32 = 4;

/// A run of reads, each about where the one before ended.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    /// Stored bytes in it so far.
    bytes: u64,
    /// The extent that would continue it.
    next: u32,
    /// The extent before which everything was wanted for it already.
    ahead: u32,
    /// Files that ended in it.
    files: usize,
}

/// How much of a region was asked for.
#[derive(Debug, Clone, Copy, Default)]
struct Region {
    first: u32,
    extents: u32,
    asked: u32,
    /// Files that end in the extents that were asked for.
    files: usize,
}

impl Region {
    fn is_dense(&self, settings: &Settings) -> bool {
        self.extents >= REGION_EXTENTS_MIN
            && self.asked > self.extents / 2
            && self.files >= settings.sequential_files_min
    }
}

/// How a feed is read.
#[derive(Debug)]
pub(crate) struct Readahead {
    run: Run,
    regions: Vec<Region>,
    /// Bytes of the largest chunk: a smaller one is the last of its file.
    chunk_bytes_max: u32,
}

impl Readahead {
    pub(crate) fn new(map: &FeedMap) -> Self {
        let chunks = map.chunks().iter().map(|chunk| chunk.bytes);
        let mut regions: Vec<Region> = Vec::new();
        let regions_max = map.extents().len().saturating_mul(4).saturating_add(1024);
        for (index, extent) in (0..).zip(map.extents()) {
            let at = usize::try_from(extent.blob_offset / REGION_BYTES).unwrap_or(usize::MAX);
            // A blob may have terabytes without an extent in them: those are not worth their memory.
            if at > regions_max {
                break;
            }
            if regions.len() <= at {
                regions.resize(at + 1, Region::default());
            }
            if let Some(region) = regions.last_mut() {
                if region.extents == 0 {
                    region.first = index;
                }
                region.extents += 1;
            }
        }
        Self {
            run: Run::default(),
            regions,
            chunk_bytes_max: chunks.max().unwrap_or(0),
        }
    }

    /// Notes a read of extents, missing ones or not; gives what is to be fetched because of it.
    pub(crate) fn note(
        &mut self,
        map: &FeedMap,
        extents: &Range<u32>,
        settings: &Settings,
    ) -> Option<Range<u32>> {
        let Run {
            bytes,
            next,
            ahead,
            files,
        } = self.run;
        let continues = extents.start.saturating_add(1) >= next && extents.start <= ahead.max(next);
        if !continues {
            self.run = Run {
                bytes: stored_bytes(map, extents),
                next: extents.end,
                ahead: extents.end,
                files: self.files_ending_in(map, extents.clone()),
            };
            return None;
        }
        let next_now = next.max(extents.end);
        let new = next..next_now;
        self.run = Run {
            bytes: bytes.saturating_add(stored_bytes(map, &new)),
            next: next_now,
            ahead: ahead.max(next_now),
            files: files + self.files_ending_in(map, new),
        };
        self.window(map, settings)
    }

    /// What a reader that has come far enough will want next.
    fn window(&mut self, map: &FeedMap, settings: &Settings) -> Option<Range<u32>> {
        let Run {
            bytes,
            next,
            ahead,
            files,
        } = self.run;
        if files < settings.sequential_files_min {
            return None;
        }
        // As far ahead as it has come; and not before half of that is used up.
        let window = bytes
            .max(settings.readahead_bytes_min)
            .min(settings.readahead_bytes_max);
        let left = stored_bytes(map, &(next..ahead));
        if left > window / 2 {
            return None;
        }
        let mut end = ahead;
        let mut wanted = left;
        while wanted < window
            && let Some(extent) = map.extent(end)
        {
            wanted = wanted.saturating_add(extent.stored_bytes.into());
            end += 1;
        }
        self.run.ahead = end;
        (ahead < end).then_some(ahead..end)
    }

    /// Notes that an extent was missing and is waited for; gives the region that it lies in when more than
    /// half of that was, in many files: who reads one large file wants that file.
    pub(crate) fn missed(
        &mut self,
        map: &FeedMap,
        extent: u32,
        settings: &Settings,
    ) -> Option<Range<u32>> {
        let offset = map.extent(extent)?.blob_offset;
        let at = usize::try_from(offset / REGION_BYTES).ok()?;
        let files = self.files_ending_in(map, extent..extent.saturating_add(1));
        let region = self.regions.get_mut(at)?;
        let was_dense = region.is_dense(settings);
        region.asked += 1;
        region.files += files;
        let is_dense = !was_dense && region.is_dense(settings);
        is_dense.then(|| region.first..region.first + region.extents)
    }

    fn files_ending_in(&self, map: &FeedMap, extents: Range<u32>) -> usize {
        extents
            .filter_map(|extent| map.extent(extent))
            .flat_map(|extent| map.chunks_of(extent))
            .filter(|chunk| chunk.bytes < self.chunk_bytes_max)
            .count()
    }
}

/// The stored bytes from the first of some extents to the last.
fn stored_bytes(map: &FeedMap, extents: &Range<u32>) -> u64 {
    let first = map.extent(extents.start);
    let last = extents.end.checked_sub(1).and_then(|last| map.extent(last));
    match (first, last) {
        (Some(first), Some(last)) if !extents.is_empty() => {
            last.stored().end.saturating_sub(first.blob_offset)
        }
        _ => 0,
    }
}
