//! Placement: every chunk of an image gets a place on a device.
//!
//! A chunk that the store knows keeps the place that it has: that is the deduplication, across images,
//! registries and ways of packing. What is new goes onto new devices: first what a start of the image is
//! known to touch, in that order, on a device of its own, so that it comes in few requests and is complete
//! soon; then the rest, blob by blob and in the order of the blob, so that sequential reads stay sequential.

use std::collections::{BTreeMap, HashMap};

use draught_digest::{Algorithm, Digest, Hasher};
use draught_erofs::{Device, Place, Placement};
use draught_store::{DeviceKey, Store, TableChunk};
use draught_tree::{BLOCK_BYTES, Chunk, ChunkId, ChunkMap, blocks_of};

/// Devices that an image may share with others. Each is a descriptor in the kernel, the keeper and the worker.
/// What lies on more than these is placed anew: an image whose chunks are strewn that widely shares little.
const SHARED_DEVICES_MAX: usize = 512;
/// New bytes of blobs that are too few for a device of their own: they share one with the next blob's.
const DEVICE_BYTES_MIN: u64 = 4 << 20;
/// Bytes of an image's devices together. Their size is whatever the image says, and every block takes bits
/// in memory and on disk: 64 MiB of each for as much as this.
const BYTES_MAX: u64 = 1 << 40;
/// Bytes of what a start touches that get a device of their own; a recording of more is no start.
const HOT_BYTES_MAX: u64 = 1 << 30;

/// Why an image's chunks can't be placed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PlaceError {
    #[error("its chunks have {bytes} bytes together, the limit is {BYTES_MAX}")]
    TooLarge { bytes: u64 },
    #[error("its metadata has a chunk of an extent that it does not have")]
    Dangling,
}

/// A device that an image needs.
#[derive(Debug)]
pub(crate) struct PlacedDevice {
    pub(crate) key: DeviceKey,
    pub(crate) bytes: u64,
    /// What belongs on it, if it is to be made.
    pub(crate) table: Option<Vec<TableChunk>>,
}

/// Where everything belongs.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) devices: Vec<PlacedDevice>,
    /// For every chunk of the map: the device's index and the place on it in bytes.
    places: Vec<Option<(u16, u64)>>,
    /// Bytes of all different chunks, in whole blocks.
    pub(crate) bytes_total: u64,
    /// How many of them the store knew.
    pub(crate) bytes_shared: u64,
}

type Known = (DeviceKey, u64);

/// Places all chunks of a map. `hot` are those that a start touches, in that order. `image` is a name for
/// the image, different for each placement. `store` is where chunks are looked for, if at all.
///
/// Nothing may be placed or removed in the store at the same time.
pub(crate) fn place(
    map: &ChunkMap,
    hot: &[ChunkId],
    store: Option<&Store>,
    image: &str,
) -> Result<Placed, PlaceError> {
    let (distinct, of_chunk) = distinct(map);
    let blocks = distinct.iter().map(|chunk| block_bytes(chunk));
    let bytes_total = blocks.fold(0, u64::saturating_add);
    if bytes_total > BYTES_MAX {
        return Err(PlaceError::TooLarge { bytes: bytes_total });
    }
    let mut layout = Layout {
        devices: Vec::new(),
        index: BTreeMap::new(),
        at: vec![None; distinct.len()],
        bytes_shared: 0,
    };
    if let Some(store) = store {
        for (index, known) in known(&distinct, store).iter().enumerate() {
            if let (Some((key, place)), Some(chunk)) = (known, distinct.get(index)) {
                layout.share(index, *key, *place, block_bytes(chunk), store);
            }
        }
    }
    let mut writer = Writer::new(image);
    let hot = hot.iter().filter_map(|id| of_chunk.get(id.index()));
    for index in hot {
        if writer.bytes > HOT_BYTES_MAX {
            break;
        }
        layout.add(*index, &distinct, &mut writer);
    }
    layout.finish(&mut writer);
    let mut last_blob = None;
    for (blob, index) in in_blob_order(map, &of_chunk)? {
        if last_blob != Some(blob) && writer.bytes >= DEVICE_BYTES_MIN {
            layout.finish(&mut writer);
        }
        last_blob = Some(blob);
        layout.add(index, &distinct, &mut writer);
    }
    layout.finish(&mut writer);
    let places = of_chunk
        .iter()
        .map(|index| layout.at.get(*index).copied().flatten())
        .collect();
    Ok(Placed {
        devices: layout.devices,
        places,
        bytes_total,
        bytes_shared: layout.bytes_shared,
    })
}

fn block_bytes(chunk: &Chunk) -> u64 {
    blocks_of(u64::from(chunk.bytes)) * BLOCK_BYTES
}

/// The chunks that differ, and for every chunk of the map which of them it is.
fn distinct(map: &ChunkMap) -> (Vec<&Chunk>, Vec<usize>) {
    let mut distinct = Vec::new();
    let mut seen = HashMap::with_capacity(map.chunks.len());
    let of_chunk = map.chunks.iter().map(|chunk| {
        *seen.entry((chunk.digest, chunk.bytes)).or_insert_with(|| {
            distinct.push(chunk);
            distinct.len() - 1
        })
    });
    let of_chunk = of_chunk.collect();
    (distinct, of_chunk)
}

/// Which place of the store each chunk is to share, if any: on as few devices as possible, and no more than
/// an image may share.
fn known(distinct: &[&Chunk], store: &Store) -> Vec<Option<Known>> {
    let wanted: Vec<(Digest, u32)> = distinct
        .iter()
        .map(|chunk| (chunk.digest, chunk.bytes))
        .collect();
    let found = store.find(&wanted);
    let mut bytes_on: BTreeMap<DeviceKey, u64> = BTreeMap::new();
    for (chunk, found) in distinct.iter().zip(&found) {
        for one in found {
            *bytes_on.entry(one.device).or_default() += block_bytes(chunk);
        }
    }
    let mut devices: Vec<(u64, DeviceKey)> = bytes_on
        .into_iter()
        .map(|(key, bytes)| (bytes, key))
        .collect();
    devices.sort_unstable_by(|a, b| b.cmp(a));
    devices.truncate(SHARED_DEVICES_MAX);
    let rank: HashMap<DeviceKey, usize> = devices
        .into_iter()
        .enumerate()
        .map(|(rank, (_, key))| (key, rank))
        .collect();
    found
        .iter()
        .map(|found| {
            // What is there already comes before what is only expected there.
            let usable = found.iter().filter(|one| rank.contains_key(&one.device));
            let best = usable.min_by_key(|one| (!one.present, rank.get(&one.device)))?;
            Some((best.device, best.place))
        })
        .collect()
}

/// All chunks by blob and in the order of the blob: the blob, and which distinct chunk it is.
fn in_blob_order(
    map: &ChunkMap,
    of_chunk: &[usize],
) -> Result<impl Iterator<Item = (u32, usize)>, PlaceError> {
    let mut order = Vec::with_capacity(map.chunks.len());
    for (chunk, index) in map.chunks.iter().zip(of_chunk) {
        let extent = map.extent(chunk.extent).ok_or(PlaceError::Dangling)?;
        order.push((extent.blob.0, extent.offset.0, chunk.offset.0, *index));
    }
    order.sort_unstable();
    Ok(order.into_iter().map(|(blob, _, _, index)| (blob, index)))
}

#[derive(Debug)]
struct Layout {
    devices: Vec<PlacedDevice>,
    index: BTreeMap<DeviceKey, u16>,
    /// For every distinct chunk.
    at: Vec<Option<(u16, u64)>>,
    bytes_shared: u64,
}

impl Layout {
    fn share(&mut self, chunk: usize, key: DeviceKey, place: u64, bytes: u64, store: &Store) {
        let device = match self.index.get(&key) {
            Some(device) => *device,
            None => {
                // One that can't be read any more is not shared: its chunks are placed anew.
                let Ok(bytes) = store.device_bytes(&key) else {
                    return;
                };
                let table = None;
                let Some(device) = self.push(PlacedDevice { key, bytes, table }) else {
                    return;
                };
                device
            }
        };
        self.bytes_shared += bytes;
        if let Some(at) = self.at.get_mut(chunk) {
            *at = Some((device, place));
        }
    }

    fn push(&mut self, device: PlacedDevice) -> Option<u16> {
        let index = u16::try_from(self.devices.len()).ok()?;
        self.index.insert(device.key, index);
        self.devices.push(device);
        Some(index)
    }

    /// Puts a chunk that has no place yet onto the device that is being written.
    fn add(&mut self, index: usize, distinct: &[&Chunk], writer: &mut Writer<'_>) {
        let device = u16::try_from(self.devices.len()).ok();
        let (Some(chunk), Some(at @ None)) = (distinct.get(index), self.at.get_mut(index)) else {
            return;
        };
        // An empty chunk is refused when the feeds are made.
        *at = device.map(|device| (device, writer.bytes));
        writer.table.push(TableChunk {
            place: writer.bytes,
            bytes: chunk.bytes,
            digest: chunk.digest,
        });
        writer.bytes += block_bytes(chunk);
    }

    fn finish(&mut self, writer: &mut Writer<'_>) {
        let table = std::mem::take(&mut writer.table);
        let bytes = std::mem::take(&mut writer.bytes);
        if table.is_empty() {
            return;
        }
        let (key, table) = (writer.key(), Some(table));
        self.push(PlacedDevice { key, bytes, table });
    }
}

/// The device that is being written.
#[derive(Debug)]
struct Writer<'a> {
    image: &'a str,
    devices: u32,
    table: Vec<TableChunk>,
    bytes: u64,
}

impl<'a> Writer<'a> {
    fn new(image: &'a str) -> Self {
        Self {
            image,
            devices: 0,
            table: Vec::new(),
            bytes: 0,
        }
    }

    fn key(&mut self) -> DeviceKey {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(self.image.as_bytes());
        hasher.update(&self.devices.to_le_bytes());
        self.devices += 1;
        DeviceKey(*hasher.finish().as_bytes())
    }
}

impl Placed {
    /// The place of a chunk.
    pub(crate) fn at(&self, chunk: ChunkId) -> Option<(u16, u64)> {
        self.places.get(chunk.index()).copied().flatten()
    }

    /// The placement as the writer of metadata images wants it.
    pub(crate) fn for_metadata(&self) -> Placement {
        let blocks = |bytes: u64| u32::try_from(bytes / BLOCK_BYTES).unwrap_or(u32::MAX);
        Placement {
            devices: self
                .devices
                .iter()
                .map(|device| Device::new(device.key.hex().as_bytes(), blocks(device.bytes)))
                .collect(),
            places: self
                .places
                .iter()
                .map(|place| match place {
                    None => Place::Nowhere,
                    Some((device, place)) => Place::At {
                        device: device.saturating_add(1),
                        block: blocks(*place),
                    },
                })
                .collect(),
        }
    }
}
