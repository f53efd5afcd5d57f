//! Where a chunk is, whichever image brought it.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use draught_digest::Digest;

use crate::device::{Device, FileStorage, Glimpse, Storage, io as device_io, options};
use crate::error::DeviceError;
use crate::index::{Candidate, Source};
use crate::key::DeviceKey;
use crate::store::Store;
use crate::table::{Record, Records, TableChunk, TableFile, Twins, digests_agree};
use crate::tables::distrust;

/// A place where a chunk belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The device.
    pub device: DeviceKey,
    /// Where the chunk begins on it, in bytes.
    pub place: u64,
    /// Whether all of its blocks were present when this was asked.
    pub present: bool,
}

/// What the index holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexStats {
    /// Chunks that can be found.
    pub chunks: u64,
    /// Second digests of them.
    pub twins: u64,
    /// Devices whose chunks can be found.
    pub devices: u64,
    /// What it takes in memory.
    pub bytes_in_memory: u64,
    /// Whether all tables were read.
    pub loaded: bool,
}

impl Store {
    /// Reads all tables into the index. To be called once, after opening and in a thread of its own:
    /// a million chunks take a fifth of a second. Whoever needs the index waits for this, and does it
    /// where nobody has begun; calling it again does nothing.
    ///
    /// A device whose table is missing or not believed is left out, with a warning: its chunks are not
    /// found, and whoever knows that no image uses it may remove it.
    pub fn load_index(&self) {
        self.tables.loaded.call_once(|| {
            let keys = self.devices().unwrap_or_else(|error| {
                tracing::warn!(%error, "the devices can't be listed: nothing is shared");
                Vec::new()
            });
            for key in keys {
                if let Err(error) = self.load_table(&key) {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(device = %key, error, "the chunks of a device are not shared");
                }
            }
        });
    }

    fn load_table(&self, key: &DeviceKey) -> Result<(), DeviceError> {
        if self.tables.index.read().has(key) {
            // Created since the store was opened.
            return Ok(());
        }
        let path = self.opener.paths().chunks(key);
        let table = self.open_table(key)?;
        let hashing = self.tables.index.read().hashing();
        let Some(added) = self.tables.index.write().add_device(*key) else {
            return Ok(());
        };
        // Nobody finds these before all are there, and all of them are true.
        let add = |source, records: &[Record]| {
            let hashes: Vec<_> = records
                .iter()
                .map(|it| (it.number, hashing.hash((it.chunk.digest, it.chunk.bytes))))
                .collect();
            self.tables.index.write().add(added, source, hashes);
        };
        let read = table
            .for_each(|records| add(Source::Table, records))
            .map_err(|e| device_io("read", &path, e))
            .and_then(|read| read.map_err(|fault| distrust(&path, fault)))
            .and_then(|()| self.open_twins(key, &table, false))
            .and_then(|twins| match twins {
                Some(twins) => twins
                    .for_each(|records| add(Source::Twins, records))
                    .map_err(|e| device_io("read", &self.opener.paths().twins(key), e)),
                None => Ok(()),
            });
        // Removed while it was read: either the remover sees the index after this, or this sees no file.
        if read.is_err() || fs_err::symlink_metadata(&path).is_err() {
            self.tables.index.write().remove_added(added);
        }
        read
    }

    fn open_twins(
        &self,
        key: &DeviceKey,
        table: &TableFile<FileStorage>,
        create: bool,
    ) -> Result<Option<Twins<FileStorage>>, DeviceError> {
        let path = self.opener.paths().twins(key);
        let opened = if create {
            options().create(true).truncate(false).open(&path)
        } else {
            fs_err::File::open(&path)
        };
        let file = match opened {
            Ok(file) => file.into_parts().0,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(device_io("open", &path, error)),
        };
        Twins::open(self.opener.storage(file), table)
            .map(Some)
            .map_err(|e| device_io("read", &path, e))
    }

    /// Where chunks with these digests and sizes belong: for each of `wanted` all places that are known,
    /// usually none or one. Places that are present come first, then by device and place.
    ///
    /// That a chunk belongs at a place is true as long as the device exists. Whether it is present may
    /// change at any moment until the device is opened and nobody punches it.
    ///
    /// What can't be read is not found, with a warning.
    #[must_use]
    pub fn find(&self, wanted: &[(Digest, u32)]) -> Vec<Vec<Found>> {
        let mut found = vec![Vec::new(); wanted.len()];
        if wanted.is_empty() {
            return found;
        }
        self.load_index();
        let candidates = self.tables.index.read().candidates(wanted);
        for on_device in candidates.candidates.chunk_by(|a, b| a.device == b.device) {
            let key = on_device
                .first()
                .and_then(|it| candidates.keys.get(&it.device));
            let Some(key) = key else { continue };
            if let Err(error) = self.find_on(key, on_device, wanted, &mut found) {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(device = %key, error, "a device is not searched for chunks");
            }
        }
        for places in &mut found {
            places.sort_unstable_by_key(|found| (!found.present, found.device, found.place));
            // A chunk that has the same digest in its table and as a twin.
            places.dedup();
        }
        found
    }

    fn find_on(
        &self,
        key: &DeviceKey,
        candidates: &[Candidate],
        wanted: &[(Digest, u32)],
        found: &mut [Vec<Found>],
    ) -> Result<(), DeviceError> {
        let table = match self.open_table(key) {
            // Removed meanwhile.
            Err(DeviceError::NoTable { .. }) => return Ok(()),
            opened => opened?,
        };
        let mut matches = Vec::new();
        let split = candidates.partition_point(|it| it.source == Source::Table);
        let (in_table, in_twins) = candidates.split_at_checked(split).unwrap_or_default();
        let path = self.opener.paths().chunks(key);
        read_matches(table.records(), in_table, wanted, &mut matches)
            .map_err(|e| device_io("read", &path, e))?;
        if !in_twins.is_empty()
            && let Some(twins) = self.open_twins(key, &table, false)?
        {
            let path = self.opener.paths().twins(key);
            read_matches(twins.records(), in_twins, wanted, &mut matches)
                .map_err(|e| device_io("read", &path, e))?;
        }
        // By place, for which presence is looked up in that order.
        matches.sort_unstable_by_key(|(asked, chunk)| (chunk.place, *asked));
        let mut presence = self.presence(key, table.header().device_bytes);
        for (asked, chunk) in matches {
            if let Some(places) = found.get_mut(asked) {
                places.push(Found {
                    device: *key,
                    place: chunk.place,
                    present: presence.has(chunk.place..chunk.end()),
                });
            }
        }
        Ok(())
    }

    fn presence(&self, key: &DeviceKey, bytes: u64) -> Presence {
        let opened = self.opened.lock();
        if let Some(device) = opened.look(key) {
            return Presence::Open(device);
        }
        let believe_volatile = opened.believes_volatile(key);
        drop(opened);
        match self.opener.glimpse(key, bytes, believe_volatile) {
            Ok(Some(glimpse)) => Presence::Closed(glimpse),
            Ok(None) => Presence::Unknown,
            Err(error) => {
                tracing::warn!(%error, "what is present on a device can't be told");
                Presence::Unknown
            }
        }
    }

    /// Learns second digests of chunks of a device: for each the place where the chunk begins, and a
    /// digest of its bytes by the other algorithm. To be called with digests that the caller computed
    /// from bytes whose first digest it verified: then an image that names its chunks by the one
    /// algorithm shares them with an image that names them by the other.
    ///
    /// What is known already is not written again. It is not made durable: losing it loses nothing but
    /// sharing.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoChunk`] if no chunk begins at a place, or one whose digest by that algorithm is
    /// another; as [`table`](Self::table), and if the filesystem refuses.
    pub fn learn(&self, key: &DeviceKey, twins: &[(u64, Digest)]) -> Result<(), DeviceError> {
        if twins.is_empty() {
            return Ok(());
        }
        let table = self.open_table(key)?;
        let path = self.opener.paths().chunks(key);
        let mut chunks = Vec::new();
        for (place, digest) in twins {
            let chunk = table.at(*place).map_err(|e| device_io("read", &path, e))?;
            let chunk = chunk.filter(|chunk| digests_agree(&chunk.digest, digest));
            let Some(chunk) = chunk else {
                return Err(DeviceError::NoChunk {
                    key: *key,
                    place: *place,
                    digest: *digest,
                });
            };
            if chunk.digest != *digest {
                chunks.push(TableChunk {
                    digest: *digest,
                    ..chunk
                });
            }
        }
        chunks.sort_unstable_by_key(|chunk| chunk.place);
        chunks.dedup();
        self.load_index();
        let _alone = self.tables.learning.lock();
        let asked: Vec<_> = chunks.iter().map(|it| (it.digest, it.bytes)).collect();
        let mut known = self.find(&asked).into_iter();
        chunks.retain(|chunk| {
            let places = known.next().unwrap_or_default();
            !places
                .iter()
                .any(|found| found.device == *key && found.place == chunk.place)
        });
        if chunks.is_empty() {
            return Ok(());
        }
        let path = self.opener.paths().twins(key);
        let Some(mut file) = self.open_twins(key, &table, true)? else {
            return Ok(());
        };
        let first = file
            .append(&chunks)
            .map_err(|e| device_io("write", &path, e))?;
        let mut index = self.tables.index.write();
        let hashing = index.hashing();
        // Those that there was no room for are not in the file, and at most looked for in vain.
        let hashes = chunks.iter().map(|it| hashing.hash((it.digest, it.bytes)));
        if let Some(added) = index.added(key) {
            index.add(added, Source::Twins, (first..).zip(hashes));
        }
        Ok(())
    }

    /// What the index holds now.
    #[must_use]
    pub fn index_stats(&self) -> IndexStats {
        let loaded = self.tables.loaded.state().done();
        let index = self.tables.index.read();
        IndexStats {
            chunks: index.chunks(),
            twins: index.twins(),
            devices: index.devices(),
            bytes_in_memory: index.bytes(),
            loaded,
        }
    }
}

/// What is present on a device.
enum Presence {
    Open(Arc<Device>),
    Closed(Glimpse),
    Unknown,
}

impl Presence {
    fn has(&mut self, range: Range<u64>) -> bool {
        match self {
            Self::Open(device) => device.is_present(range),
            Self::Closed(glimpse) => glimpse.is_present(range).unwrap_or(false),
            Self::Unknown => false,
        }
    }
}

/// The records that are not asked for and that one read may fetch between two that are: two reads cost
/// more than copying 2 KiB.
const GAP_MAX: u32 = 32;
/// The records that one read fetches at most.
const SPAN_MAX: u32 = 1024;

/// Reads the records of `candidates`, which ascend, and collects those that are about what was asked.
fn read_matches<S: Storage>(
    records: &Records<S>,
    candidates: &[Candidate],
    wanted: &[(Digest, u32)],
    matches: &mut Vec<(usize, TableChunk)>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut rest = candidates;
    while let Some(first) = rest.first().map(|it| it.number) {
        let mut last = first;
        let joins = |it: &&Candidate| {
            let joins = it.number - last <= GAP_MAX && it.number - first < SPAN_MAX;
            last = if joins { it.number } else { last };
            joins
        };
        let count = rest.iter().take_while(joins).count();
        let (now, later) = rest.split_at_checked(count).unwrap_or_default();
        rest = later;
        if !records.read(first..last + 1, &mut bytes)? {
            // Cut off since it was read into the index.
            continue;
        }
        for candidate in now {
            let chunk = records.decode(first, &bytes, candidate.number);
            let asked = wanted.get(candidate.asked);
            if let Some(chunk) = chunk
                && asked == Some(&(chunk.digest, chunk.bytes))
            {
                matches.push((candidate.asked, chunk));
            }
        }
    }
    Ok(())
}
