//! Taking blocks back, and their space.

use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;

use super::bits;
use super::blocks::{Blocks, blocks_of, words_of};
use super::format::{Area, BLOCK_BYTES, SECTOR_WORDS, sectors_of};
use super::storage::Storage;
use crate::error::WriteError;

impl<S: Storage> Blocks<S> {
    /// Takes blocks back and gives back their space; the bytes of those that were present.
    ///
    /// 1. Their durable bits are cleared in the file, then their volatile ones, then those in memory.
    /// 2. The map is made durable: from here on no crash brings them back.
    /// 3. The holes are made.
    ///
    /// Both areas are written whatever the bits in memory say: a write that failed earlier may have left
    /// bits in the file that were true then.
    pub(super) fn punch(&self, ranges: &[Range<u64>]) -> Result<u64, WriteError> {
        let blocks = self.whole_blocks(ranges)?;
        // A synchronization under way would write the bits of its snapshot after they were cleared.
        let _alone = self.syncing.lock();
        if self.is_poisoned() {
            return Err(self.refused());
        }
        if blocks.is_empty() {
            return Ok(0);
        }
        let _claim = self.claims.to_punch(&blocks);
        let taken_back = self.take_back(&blocks)?;
        self.map
            .sync()
            .map_err(|error| self.broken("make durable the map of", error))?;
        self.map_is_unsynced.store(false, Ordering::Release);
        if self.is_poisoned() {
            return Err(self.refused());
        }
        for blocks in &blocks {
            let bytes = (blocks.end - blocks.start) * BLOCK_BYTES;
            self.data
                .punch_hole(blocks.start * BLOCK_BYTES, bytes)
                .map_err(|error| self.not_punched(error))?;
        }
        Ok(taken_back * BLOCK_BYTES)
    }

    /// The blocks of these ranges, in order, none touching the next.
    fn whole_blocks(&self, ranges: &[Range<u64>]) -> Result<Vec<Range<u64>>, WriteError> {
        let mut blocks = Vec::with_capacity(ranges.len());
        for range in ranges {
            self.writable(range.clone())?;
            if !range.end.is_multiple_of(BLOCK_BYTES) {
                return Err(self.out_of_range(range));
            }
            blocks.push(range.start / BLOCK_BYTES..range.end / BLOCK_BYTES);
        }
        blocks.retain(|blocks| !blocks.is_empty());
        blocks.sort_unstable_by_key(|blocks| blocks.start);
        Ok(merge(blocks))
    }

    /// Makes these blocks not present; how many were.
    fn take_back(&self, blocks: &[Range<u64>]) -> Result<u64, WriteError> {
        let mut durable = self.durable.lock();
        if self.is_poisoned() {
            return Err(self.refused());
        }
        // Before the file: if writing it fails in the middle, those that are still present are written again
        // by the next synchronization.
        for blocks in blocks {
            bits::clear_in(&mut durable, 0, blocks.clone());
        }
        let sectors = merge(blocks.iter().map(sectors_of).collect());
        let mut taken_back = 0;
        let written = self
            .clear_durable(&sectors, &durable)
            .and_then(|()| self.clear_volatile(&sectors, blocks, &mut taken_back));
        drop(durable);
        if written.is_err() {
            // The file may have lost them in part. Were they taken for present, filling them again would
            // not be noted there.
            for blocks in blocks {
                self.present.clear(blocks.clone());
            }
        }
        written.map_err(|error| self.failed("take blocks back in the map of", error))?;
        Ok(taken_back)
    }

    fn clear_durable(&self, sectors: &[Range<usize>], durable: &[u64]) -> io::Result<()> {
        for run in sectors {
            let words = |sector| words_of(durable, sector);
            self.map
                .write_words(Area::Durable, run.clone(), words, |_| ())?;
        }
        Ok(())
    }

    fn clear_volatile(
        &self,
        sectors: &[Range<usize>],
        blocks: &[Range<u64>],
        taken_back: &mut u64,
    ) -> io::Result<()> {
        for run in sectors {
            self.map.write_words(
                Area::Volatile,
                run.clone(),
                |sector| {
                    let first = sector * SECTOR_WORDS;
                    let mut words = self.present.words(first..first + SECTOR_WORDS);
                    for cleared in within(blocks, blocks_of(&(sector..sector + 1))) {
                        bits::clear_in(&mut words, first, cleared);
                    }
                    words
                },
                |done| {
                    for cleared in within(blocks, blocks_of(&done)) {
                        *taken_back += self.present.clear(cleared);
                    }
                },
            )?;
        }
        Ok(())
    }

    fn not_punched(&self, source: io::Error) -> WriteError {
        if source.kind() == io::ErrorKind::Unsupported {
            return WriteError::NoHoles {
                path: self.path().to_owned(),
                source,
            };
        }
        self.failed("give back space of", source)
    }
}

/// Joins ranges, which ascend by their starts, where they touch or overlap.
fn merge<T: Ord + Copy>(ranges: Vec<Range<T>>) -> Vec<Range<T>> {
    let mut merged: Vec<Range<T>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The parts of `blocks`, which ascend, that are in `outer`.
fn within(blocks: &[Range<u64>], outer: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let first = blocks.partition_point(|blocks| blocks.end <= outer.start);
    let end = outer.end;
    blocks
        .iter()
        .skip(first)
        .take_while(move |blocks| blocks.start < end)
        .map(move |blocks| blocks.start.max(outer.start)..blocks.end.min(outer.end))
}
