//! Reading and writing a map file.

use std::io;
use std::ops::Range;

use super::bits::{narrow, widen};
use super::format::{
    Area, BLOCK_BYTES, BootId, Distrust, Geometry, Identity, SECTOR_BYTES, SECTOR_WORDS,
    SectorCodec, decode_header, encode_header,
};
use super::storage::Storage;

/// The most sectors read or written by one call: 64 KiB, so that no buffer grows with the device.
const SECTORS_PER_CALL: usize = 128;

/// A map file that is open.
#[derive(Debug)]
pub(super) struct Map<S> {
    storage: S,
    identity: Identity,
    geometry: Geometry,
    codec: SectorCodec,
}

/// What a map says.
#[derive(Debug)]
pub(super) struct Loaded {
    /// The boot under which the volatile bits count.
    pub(super) boot: BootId,
    pub(super) durable: Vec<u64>,
    pub(super) volatile: Vec<u64>,
    /// Sectors of either area that were damaged; their bits are not set.
    pub(super) damaged_sectors: u64,
}

impl<S: Storage> Map<S> {
    pub(super) fn new(storage: S, identity: Identity) -> Self {
        Self {
            storage,
            identity,
            geometry: Geometry::new(identity.bytes),
            codec: SectorCodec::new(&identity),
        }
    }

    /// The device's size.
    pub(super) fn bytes(&self) -> u64 {
        self.identity.bytes
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Makes an empty file the map of a device of which nothing is present.
    pub(super) fn create(&self, boot: BootId) -> io::Result<()> {
        self.storage.set_len(self.geometry.file_bytes())?;
        self.write_header(boot)
    }

    /// Reads the header: under which boot the volatile bits count.
    pub(super) fn load_header(&self) -> io::Result<Result<BootId, Distrust>> {
        if self.storage.len()? != self.geometry.file_bytes() {
            return Ok(Err(Distrust::Length));
        }
        let mut header = [0; SECTOR_BYTES];
        self.storage.read_at(0, &mut header)?;
        Ok(decode_header(&header, &self.identity))
    }

    /// Reads one sector; one that is damaged or does not exist has no bits.
    pub(super) fn load_sector(&self, area: Area, sector: usize) -> io::Result<Vec<u64>> {
        let mut words = vec![0; SECTOR_WORDS];
        if sector >= self.geometry.sectors() {
            return Ok(words);
        }
        let mut bytes = [0; SECTOR_BYTES];
        self.storage
            .read_at(self.geometry.offset(area, sector), &mut bytes)?;
        self.codec.decode(area, sector, &bytes, &mut words);
        Ok(words)
    }

    /// Reads everything.
    pub(super) fn load(&self) -> io::Result<Result<Loaded, Distrust>> {
        let boot = match self.load_header()? {
            Ok(boot) => boot,
            Err(distrust) => return Ok(Err(distrust)),
        };
        let mut damaged_sectors = 0;
        let durable = self.read_words(Area::Durable, &mut damaged_sectors)?;
        let volatile = self.read_words(Area::Volatile, &mut damaged_sectors)?;
        Ok(Ok(Loaded {
            boot,
            durable,
            volatile,
            damaged_sectors,
        }))
    }

    /// Says under which boot the volatile bits count.
    pub(super) fn write_header(&self, boot: BootId) -> io::Result<()> {
        self.storage
            .write_at(0, &encode_header(&self.identity, boot))
    }

    /// Makes sure that nobody believes this file, if its header can't be written.
    pub(super) fn destroy(&self) -> io::Result<()> {
        self.storage.set_len(0)
    }

    /// Writes `sectors`, whose words are `words`, at most [`SECTORS_PER_CALL`] at a time. `done` is
    /// called after each call that succeeded, with the sectors written so far.
    pub(super) fn write_words(
        &self,
        area: Area,
        sectors: Range<usize>,
        mut words: impl FnMut(usize) -> Vec<u64>,
        mut done: impl FnMut(Range<usize>),
    ) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(sectors.len().min(SECTORS_PER_CALL) * SECTOR_BYTES);
        let mut start = sectors.start;
        while start < sectors.end {
            let end = sectors.end.min(start + SECTORS_PER_CALL);
            bytes.clear();
            for sector in start..end {
                self.codec.encode(area, sector, &words(sector), &mut bytes);
            }
            self.storage
                .write_at(self.geometry.offset(area, start), &bytes)?;
            done(start..end);
            start = end;
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.storage.sync_data()
    }

    fn read_words(&self, area: Area, damaged_sectors: &mut u64) -> io::Result<Vec<u64>> {
        let sectors = self.geometry.sectors();
        let mut words = vec![0; self.geometry.words()];
        let mut bytes = vec![0; sectors.min(SECTORS_PER_CALL) * SECTOR_BYTES];
        let mut sector = 0;
        for batch in words.chunks_mut(SECTORS_PER_CALL * SECTOR_WORDS) {
            let used = batch.len() / SECTOR_WORDS * SECTOR_BYTES;
            let bytes = bytes.get_mut(..used).unwrap_or_default();
            self.storage
                .read_at(self.geometry.offset(area, sector), bytes)?;
            for (words, bytes) in batch
                .chunks_mut(SECTOR_WORDS)
                .zip(bytes.chunks(SECTOR_BYTES))
            {
                if !self.codec.decode(area, sector, bytes, words) {
                    *damaged_sectors += 1;
                }
                sector += 1;
            }
        }
        mask_end(&mut words, self.identity.bytes.div_ceil(BLOCK_BYTES));
        Ok(words)
    }
}

/// Clears the bits of blocks that don't exist.
fn mask_end(words: &mut [u64], blocks: u64) {
    for (index, word) in words.iter_mut().enumerate().skip(narrow(blocks / 64)) {
        let kept = blocks.saturating_sub(widen(index) * 64);
        if kept < 64 {
            *word &= (1 << kept) - 1;
        }
    }
}
