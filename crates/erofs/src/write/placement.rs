//! Where chunks lie.

use draught_tree::{ChunkId, ChunkMap, NodeId, blocks_of};

use crate::superblock::TAG_BYTES;
use crate::write::content::{ChunkList, Content, ContentError, Runs};

/// An extra device of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// What names it, for people: the kernel is told where devices are when it mounts.
    pub tag: [u8; TAG_BYTES],
    /// Blocks on it, for statfs.
    pub blocks: u32,
}

impl Device {
    /// A device of that tag, which is cut off after [`TAG_BYTES`].
    #[must_use]
    pub fn new(tag: &[u8], blocks: u32) -> Self {
        let mut padded = [0; TAG_BYTES];
        for (to, from) in padded.iter_mut().zip(tag) {
            *to = *from;
        }
        Self {
            tag: padded,
            blocks,
        }
    }
}

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    /// Nowhere; a file that has it can't be written.
    #[default]
    Nowhere,
    /// It is all zeros and read without any device.
    Hole,
    /// On a device.
    At {
        /// The device, counted from 1.
        device: u16,
        /// Its first block there.
        block: u32,
    },
}

/// The devices of an image and where on them its chunks lie.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement {
    /// The devices, in the order in which they are given to the mount.
    pub devices: Vec<Device>,
    /// The place of every [`ChunkId`] of the tree.
    pub places: Vec<Place>,
}

impl Placement {
    /// Every blob of the map is a device of its own, and every chunk lies where its blob has it.
    /// Chunks that can't be addressed so stay nowhere.
    #[must_use]
    pub fn of_blobs(map: &ChunkMap) -> Self {
        let devices = map.blobs.iter().map(|blob| {
            let blocks = u32::try_from(blocks_of(blob.device_bytes)).unwrap_or(u32::MAX);
            Device::new(blob.digest.hex().as_bytes(), blocks)
        });
        let place = |chunk| {
            let blob = map.blob_of(chunk)?;
            let device = u16::try_from(blob.index() + 1).ok()?;
            if chunk.place.0 % crate::BLOCK_BYTES != 0 {
                return None;
            }
            let block = u32::try_from(chunk.place.0 / crate::BLOCK_BYTES).ok()?;
            Some(Place::At { device, block })
        };
        let places = map
            .chunks
            .iter()
            .map(|chunk| place(chunk).unwrap_or_default());
        Self {
            devices: devices.collect(),
            places: places.collect(),
        }
    }
}

/// A map and the places of its chunks: what [`crate::write()`] describes files with.
#[derive(Debug)]
pub(crate) struct Placed<'a> {
    pub(crate) map: &'a ChunkMap,
    pub(crate) placement: &'a Placement,
}

impl Content for Placed<'_> {
    fn describe(
        &self,
        _: NodeId,
        file_bytes: u64,
        chunks: &[ChunkId],
        list: &mut ChunkList,
    ) -> Result<(), ContentError> {
        let mut runs = Runs::default();
        let mut offset = 0_u64;
        for id in chunks.iter().copied() {
            let unplaced = ContentError::Unplaced { chunk: id };
            let chunk = self.map.chunk(id).ok_or(unplaced.clone())?;
            if !offset.is_multiple_of(crate::BLOCK_BYTES) {
                return Err(ContentError::Unaligned { chunk: id, offset });
            }
            let place = match self.placement.places.get(id.index()) {
                None | Some(Place::Nowhere) => return Err(unplaced),
                Some(Place::Hole) => None,
                Some(Place::At { device, block }) => {
                    let devices = self.placement.devices.len();
                    if *device == 0 || usize::from(*device) > devices {
                        return Err(ContentError::Device {
                            chunk: id,
                            device: *device,
                            devices,
                        });
                    }
                    // The last address means "hole", so a chunk must end below it.
                    let end = u64::from(*block) + blocks_of(u64::from(chunk.bytes));
                    if end > u64::from(u32::MAX) {
                        let block = u64::from(*block);
                        return Err(ContentError::Address { chunk: id, block });
                    }
                    Some((*device, *block))
                }
            };
            runs.push(offset / crate::BLOCK_BYTES, place);
            offset = offset.saturating_add(u64::from(chunk.bytes));
        }
        if offset != file_bytes {
            return Err(ContentError::Size {
                chunk_bytes: offset,
                file_bytes,
            });
        }
        runs.fill(file_bytes, list);
        Ok(())
    }
}
