//! A planner, the devices that it fills, and a clock.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use draught_digest::{Algorithm, Digest};
use draught_tree::{
    Blob, BlobId, BlobOffset, Chunk, ChunkMap, ChunkOffset, Compression, DeviceOffset, Extent,
};

use crate::*;

pub(super) const BLOCK: u64 = 4096;

/// What is on the devices, block by block.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk(pub(super) Rc<RefCell<BTreeSet<(u32, u64)>>>);

impl Presence for Disk {
    fn is_present(&self, device: DeviceId, range: Range<u64>) -> bool {
        let blocks = self.0.borrow();
        let mut range = range.start / BLOCK..range.end.div_ceil(BLOCK);
        range.all(|block| blocks.contains(&(device.0, block)))
    }
}

/// A blob of extents of one chunk of one block each, `stored` bytes apart; each is a file of its own
/// but for the first, which is larger than all others. `place` says where each belongs: device and block.
pub(super) fn map(extents: u32, stored: u32, place: impl Fn(u32) -> (u16, u64)) -> Arc<FeedMap> {
    let mut map = ChunkMap::default();
    let digest = Digest::new(Algorithm::Sha256, [7; 32]);
    map.push_blob(Blob {
        digest,
        stored_bytes: u64::from(extents) * u64::from(stored),
        device_bytes: 0,
    });
    for index in 0..extents {
        let extent = map.push_extent(Extent {
            blob: BlobId(0),
            offset: BlobOffset(u64::from(index) * u64::from(stored)),
            stored_bytes: stored,
            decoded_bytes: 4096,
            compression: Compression::Zstd,
        });
        map.push_chunk(Chunk {
            digest,
            extent: extent.unwrap(),
            offset: ChunkOffset(0),
            bytes: if index == 0 { 4096 } else { 4000 },
            place: DeviceOffset(0),
        });
    }
    let at = |chunk: draught_tree::ChunkId| {
        let (device, block) = place(chunk.0);
        Some((device, block * BLOCK))
    };
    Arc::new(FeedMap::new(&map, BlobId(0), at).unwrap())
}

/// A planner, the disk that it asks, and feeds that all have a device, a source and an image of their own.
pub(super) struct World {
    pub(super) planner: Planner<Disk>,
    pub(super) disk: Disk,
    pub(super) maps: Vec<Arc<FeedMap>>,
}

impl World {
    pub(super) fn new(feeds: u32, extents: u32, settings: Settings) -> Self {
        Self::with(feeds, settings, |_| {
            map(extents, 1000, |index| (0, index.into()))
        })
    }

    pub(super) fn with(feeds: u32, settings: Settings, map: impl Fn(u32) -> Arc<FeedMap>) -> Self {
        let disk = Disk::default();
        let mut world = Self {
            planner: Planner::new(settings, disk.clone()),
            disk,
            maps: Vec::new(),
        };
        for feed in 0..feeds {
            world.add(map(feed), &[feed], feed);
        }
        world
    }

    /// Adds the next feed, of an image and from a source of that number.
    pub(super) fn add(&mut self, map: Arc<FeedMap>, devices: &[u32], image: u32) {
        let id = FeedId(u32::try_from(self.maps.len()).unwrap());
        let feed = Feed {
            map: Arc::clone(&map),
            devices: devices.iter().map(|device| DeviceId(*device)).collect(),
            source: SourceId(image),
            image: ImageId(image),
        };
        self.planner.add_feed(id, feed);
        self.maps.push(map);
    }

    pub(super) fn fault(&mut self, now_ms: u64, device: u32, blocks: Range<u64>, token: u64) {
        let fault = Fault {
            device: DeviceId(device),
            range: blocks.start * BLOCK..blocks.end * BLOCK,
            token,
        };
        self.planner.fault(now_ms, fault);
    }

    pub(super) fn fetches(&mut self, now_ms: u64) -> Vec<Fetch> {
        std::iter::from_fn(|| self.planner.next_fetch(now_ms)).collect()
    }

    pub(super) fn readies(&mut self) -> Vec<Ready> {
        std::iter::from_fn(|| self.planner.next_ready()).collect()
    }

    /// Puts extents of a feed onto the disk, each on the device of the feed's number and its own index's block.
    pub(super) fn write(&self, device: u32, extents: Range<u32>, feed: FeedId) {
        let map = &self.maps[feed.0 as usize];
        for extent in extents {
            for chunk in map.chunks_of(map.extent(extent).unwrap()) {
                for block in chunk.place / BLOCK..chunk.blocks().end / BLOCK {
                    self.disk.0.borrow_mut().insert((device, block));
                }
            }
        }
    }

    /// A fetch succeeds, but for these extents. For feeds with one device, that of their number.
    pub(super) fn succeed(&mut self, now_ms: u64, fetch: &Fetch, failures: &[(u32, Failure)]) {
        for extent in fetch.extents.clone() {
            if failures.iter().all(|(failed, _)| *failed != extent) {
                self.write(fetch.feed.0, extent..extent + 1, fetch.feed);
            }
        }
        self.planner
            .fetched(now_ms, fetch.id, Ok(failures.to_vec()));
    }
}

pub(super) fn ok(token: u64) -> Ready {
    Ready {
        token,
        result: Ok(()),
    }
}

pub(super) fn failed(token: u64, failure: Failure) -> Ready {
    Ready {
        token,
        result: Err(failure),
    }
}

pub(super) const DOWN: Failure = Failure::Unavailable {
    retry_after_ms: None,
};
