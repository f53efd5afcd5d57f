//! A look at the map of a device that is not open.

use std::io;
use std::ops::Range;

use super::bits::Bits;
use super::format::{Area, BLOCK_BYTES, BootId, sectors_of};
use super::map::Map;
use super::storage::FileStorage;

/// What is present on a device that is not open: true when it is read, and perhaps not for long.
#[derive(Debug)]
pub(crate) struct Glimpse {
    map: Map<FileStorage>,
    area: Area,
    /// The sector that was read last.
    last: Option<(usize, Bits)>,
}

impl Glimpse {
    pub(super) fn new(
        map: Map<FileStorage>,
        boot: BootId,
        believe_volatile: bool,
    ) -> io::Result<Option<Self>> {
        Ok(map.load_header()?.ok().map(|map_boot| Self {
            area: if map_boot == boot && believe_volatile {
                Area::Volatile
            } else {
                Area::Durable
            },
            map,
            last: None,
        }))
    }

    /// Whether all blocks of `range` (of bytes) are present. Cheap when the ranges asked for one after the
    /// other ascend.
    pub(crate) fn is_present(&mut self, range: Range<u64>) -> io::Result<bool> {
        let blocks = range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
        for sector in sectors_of(&blocks) {
            let first = super::blocks::blocks_of(&(sector..sector + 1));
            let bits = match self.last.take() {
                Some((last, bits)) if last == sector => bits,
                _ => Bits::new(&self.map.load_sector(self.area, sector)?),
            };
            let start = blocks.start.max(first.start) - first.start;
            let end = blocks.end.min(first.end) - first.start;
            let all = bits.all(start..end);
            self.last = Some((sector, bits));
            if !all {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
