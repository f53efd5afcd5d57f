//! Which blocks of a device are present, and the order in which that becomes so.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::bits::{self, Bits, narrow, widen};
use super::claims::Claims;
use super::format::{Area, BLOCK_BYTES, BootId, SECTOR_WORDS, sectors_of};
use super::map::{Loaded, Map};
use super::storage::Storage;
use crate::error::{WriteError, is_no_space};

/// A device's data and map over any [`Storage`].
///
/// Locks are taken in the order of the fields: `syncing`, then claims, then `durable`.
#[derive(Debug)]
pub(super) struct Blocks<S> {
    /// The data file's path, for errors.
    path: PathBuf,
    pub(super) bytes: u64,
    pub(super) data: S,
    pub(super) map: Map<S>,
    pub(super) present: Bits,
    poisoned: AtomicBool,
    /// Whether the map was not synchronized since opening: durable bits that an earlier process wrote may
    /// be in the page cache only.
    pub(super) map_is_unsynced: AtomicBool,
    /// Held for a whole synchronization: two would write each other's durable bits backwards.
    pub(super) syncing: Mutex<()>,
    pub(super) claims: Claims,
    /// The bits known to be durable. Held while the map file is written and while `present` changes, so
    /// that the words in the file change in the order of those in memory.
    pub(super) durable: Mutex<Vec<u64>>,
}

/// What opening found in the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Blocks that counted only under another boot, or before a failure of the disk.
    pub(super) lost_blocks: u64,
    /// Sectors of the map whose bits are not believed.
    pub(super) damaged_sectors: u64,
}

impl<S: Storage> Blocks<S> {
    /// A device of which nothing is present, whose map is an empty file.
    pub(super) fn create(path: &Path, data: S, map: Map<S>, boot: BootId) -> io::Result<Self> {
        map.create(boot)?;
        let none = vec![0; map.geometry().words()];
        Ok(Self::from_parts(path, data, map, &none, none.clone()))
    }

    /// A device with what the map said that an earlier process left.
    ///
    /// `believe_volatile` is false when something else than the map says that volatile bits can't be
    /// trusted.
    pub(super) fn open(
        path: &Path,
        data: S,
        map: Map<S>,
        loaded: Loaded,
        boot: BootId,
        believe_volatile: bool,
    ) -> io::Result<(Self, Found)> {
        let Loaded {
            boot: map_boot,
            durable,
            mut volatile,
            damaged_sectors,
        } = loaded;
        let mut lost_blocks = 0;
        if map_boot == boot && believe_volatile {
            for (volatile, durable) in volatile.iter_mut().zip(&durable) {
                *volatile |= durable;
            }
        } else {
            lost_blocks = bits::count(&volatile).saturating_sub(bits::count(&durable));
            volatile.clone_from(&durable);
            if map_boot == boot {
                map.write_header(BootId::NONE)?;
            }
            // The old volatile bits must be gone before the header says that they count. When this
            // process dies in between, the next one finds another boot and does it again.
            let sectors = 0..map.geometry().sectors();
            let words = |sector| words_of(&volatile, sector);
            map.write_words(Area::Volatile, sectors, words, |_| ())?;
            map.write_header(boot)?;
        }
        let found = Found {
            lost_blocks,
            damaged_sectors,
        };
        let blocks = Self::from_parts(path, data, map, &volatile, durable);
        Ok((blocks, found))
    }

    fn from_parts(path: &Path, data: S, map: Map<S>, present: &[u64], durable: Vec<u64>) -> Self {
        Self {
            path: path.to_owned(),
            bytes: map.bytes(),
            data,
            map,
            present: Bits::new(present),
            poisoned: AtomicBool::new(false),
            map_is_unsynced: AtomicBool::new(true),
            syncing: Mutex::new(()),
            claims: Claims::default(),
            durable: Mutex::new(durable),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn data(&self) -> &S {
        &self.data
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    pub(super) fn is_present(&self, range: Range<u64>) -> bool {
        self.present.all(self.touched(range))
    }

    pub(super) fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut runs = self.present.clear_runs(self.touched(range));
        for run in &mut runs {
            *run = run.start * BLOCK_BYTES..run.end * BLOCK_BYTES;
        }
        runs
    }

    pub(super) fn bytes_present(&self) -> u64 {
        self.present.count() * BLOCK_BYTES
    }

    pub(super) fn bytes_durable(&self) -> u64 {
        bits::count(&self.durable.lock()) * BLOCK_BYTES
    }

    /// Writes and marks present, as one step as far as punching is concerned: between the two, a hole would be
    /// made that the mark then shows.
    pub(super) fn fill(&self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        let range = offset..offset.saturating_add(widen(bytes.len()));
        self.writable(range.clone())?;
        let blocks = [self.touched(range.clone())];
        let _claim = self.claims.to_fill(&blocks);
        self.write(offset, bytes)?;
        self.mark_present(range)
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        self.writable(offset..offset.saturating_add(widen(bytes.len())))?;
        if self.is_poisoned() {
            return Err(self.refused());
        }
        let tail_bytes = bytes.len() % narrow(BLOCK_BYTES);
        let (whole, tail) = bytes
            .split_at_checked(bytes.len() - tail_bytes)
            .unwrap_or_default();
        if !whole.is_empty() {
            self.data
                .write_at(offset, whole)
                .map_err(|error| self.failed("write data to", error))?;
        }
        if !tail.is_empty() {
            // Whole blocks are written: what follows a chunk's end is zeros, whatever was there.
            let mut block = [0; 4096];
            for (to, from) in block.iter_mut().zip(tail) {
                *to = *from;
            }
            self.data
                .write_at(offset + widen(whole.len()), &block)
                .map_err(|error| self.failed("write data to", error))?;
        }
        Ok(())
    }

    pub(super) fn mark_present(&self, range: Range<u64>) -> Result<(), WriteError> {
        self.writable(range.clone())?;
        let blocks = self.touched(range);
        let durable = self.durable.lock();
        if self.is_poisoned() {
            return Err(self.refused());
        }
        if self.present.all(blocks.clone()) {
            return Ok(());
        }
        // The file goes first: a bit that a reader saw here is one that the next process sees too.
        let written = self.map.write_words(
            Area::Volatile,
            sectors_of(&blocks),
            |sector| {
                let first = sector * SECTOR_WORDS;
                let mut words = self.present.words(first..first + SECTOR_WORDS);
                bits::set_in(&mut words, first, blocks.clone());
                words
            },
            |sectors| {
                let done = blocks_of(&sectors);
                self.present
                    .set(blocks.start.max(done.start)..blocks.end.min(done.end));
            },
        );
        drop(durable);
        written.map_err(|error| self.failed("mark blocks present in the map of", error))
    }

    pub(super) fn sync(&self) -> Result<(), WriteError> {
        let _alone = self.syncing.lock();
        if self.is_poisoned() {
            return Err(self.refused());
        }
        // Marked, hence written before the data is made durable below.
        let snapshot = self.present.snapshot();
        let dirty = dirty_sectors(&snapshot, &self.durable.lock());
        if dirty.is_empty() && !self.map_is_unsynced.load(Ordering::Acquire) {
            return Ok(());
        }
        if !dirty.is_empty() {
            // A full disk that shows only now has lost data like any other failure here.
            self.data
                .sync_data()
                .map_err(|error| self.broken("make durable the data of", error))?;
            self.write_durable(&snapshot, dirty)?;
        }
        self.map
            .sync()
            .map_err(|error| self.broken("make durable the map of", error))?;
        self.map_is_unsynced.store(false, Ordering::Release);
        let mut durable = self.durable.lock();
        if self.is_poisoned() {
            return Err(self.refused());
        }
        *durable = snapshot;
        Ok(())
    }

    /// Writes the durable bits of `sectors`, whose data is durable.
    fn write_durable(
        &self,
        snapshot: &[u64],
        sectors: Vec<Range<usize>>,
    ) -> Result<(), WriteError> {
        let durable = self.durable.lock();
        if self.is_poisoned() {
            return Err(self.refused());
        }
        for run in sectors {
            let words = |sector| words_of(snapshot, sector);
            if let Err(error) = self.map.write_words(Area::Durable, run, words, |_| ()) {
                drop(durable);
                return Err(self.failed("write durable blocks to the map of", error));
            }
        }
        Ok(())
    }

    /// The blocks that `range` touches, as far as they exist.
    fn touched(&self, range: Range<u64>) -> Range<u64> {
        if range.is_empty() {
            return 0..0;
        }
        let end = range.end.min(self.bytes).div_ceil(BLOCK_BYTES);
        let start = range.start / BLOCK_BYTES;
        start.min(end)..end
    }

    pub(super) fn writable(&self, range: Range<u64>) -> Result<(), WriteError> {
        if range.start.is_multiple_of(BLOCK_BYTES)
            && range.start <= range.end
            && range.end <= self.bytes
        {
            return Ok(());
        }
        Err(self.out_of_range(&range))
    }

    pub(super) fn out_of_range(&self, range: &Range<u64>) -> WriteError {
        WriteError::OutOfRange {
            path: self.path.clone(),
            start: range.start,
            end: range.end,
            device_bytes: self.bytes,
        }
    }

    pub(super) fn refused(&self) -> WriteError {
        WriteError::Poisoned {
            path: self.path.clone(),
        }
    }

    /// What a failed write means: a full disk, or the end of this device.
    pub(super) fn failed(&self, action: &'static str, source: io::Error) -> WriteError {
        if is_no_space(&source) {
            return WriteError::NoSpace {
                path: self.path.clone(),
                source,
            };
        }
        self.broken(action, source)
    }

    /// Takes the device out of use.
    pub(super) fn broken(&self, action: &'static str, source: io::Error) -> WriteError {
        self.poison();
        WriteError::Failed {
            action,
            path: self.path.clone(),
            source,
        }
    }

    /// As if the disk had failed.
    #[cfg(test)]
    pub(super) fn poison_for_test(&self) {
        self.poison();
    }

    /// Takes no more data and believes only what is durable, here and after the next opening: pages that
    /// could not be written back may be dropped by the kernel at any moment.
    fn poison(&self) {
        let durable = self.durable.lock();
        if self.poisoned.swap(true, Ordering::AcqRel) {
            return;
        }
        self.present.reset(&durable);
        let Err(error) = self.map.write_header(BootId::NONE) else {
            return;
        };
        let destroyed = self.map.destroy();
        tracing::error!(
            path = %self.path.display(),
            %error,
            destroyed = destroyed.is_ok(),
            "the map of a failed device can't be written"
        );
    }
}

/// The words of `sector`.
pub(super) fn words_of(words: &[u64], sector: usize) -> Vec<u64> {
    words
        .chunks(SECTOR_WORDS)
        .nth(sector)
        .unwrap_or_default()
        .to_vec()
}

/// The blocks that `sectors` speak of.
pub(super) fn blocks_of(sectors: &Range<usize>) -> Range<u64> {
    let blocks = |sector: usize| widen(sector * SECTOR_WORDS) * 64;
    blocks(sectors.start)..blocks(sectors.end)
}

/// The runs of sectors in which `new` differs from `old`.
fn dirty_sectors(new: &[u64], old: &[u64]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let pairs = new.chunks(SECTOR_WORDS).zip(old.chunks(SECTOR_WORDS));
    for (sector, _) in pairs.enumerate().filter(|(_, (new, old))| new != old) {
        match runs.last_mut() {
            Some(last) if last.end == sector => last.end += 1,
            _ => runs.push(sector..sector + 1),
        }
    }
    runs
}
