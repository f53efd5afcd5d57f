//! Which parts of an image were touched, in the order of the first touch: what the next start is
//! prefetched by.
//!
//! Recorded always, from the reads that reach us: those of blocks that were missing, and of devices that are
//! not complete. What is complete is read past us, so a recording grows over runs and is never begun anew.
//!
//! On disk: the 8 bytes `DRGHTTC1`, then 16 bytes a touch (milliseconds since the mount u32, first block u32,
//! blocks u32, device u16, zero u16, all little endian), and a BLAKE3 of all that.

use std::collections::BTreeMap;
use std::ops::Range;

use draught_tree::BLOCK_BYTES;

use crate::record::{Fields, seal, unseal};

/// Touches of one image that are kept: a start of a program touches some hundred, and reading a whole
/// distribution some ten thousand. They take 320 KiB.
const TOUCHES_MAX: usize = 20_000;
const MAGIC: &[u8; 8] = b"DRGHTTC1";
/// Touches of blocks that follow each other are one when they began within so many milliseconds: finer than
/// anybody sees in a picture, and enough for a file that is read in pieces.
const JOIN_MS: u32 = 20;

/// A range of a device that was touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Touch {
    /// Milliseconds since the image was mounted.
    pub(crate) at_ms: u32,
    /// The device among the image's.
    pub(crate) device: u16,
    /// Its first block.
    pub(crate) block: u32,
    /// How many blocks.
    pub(crate) blocks: u32,
}

impl Touch {
    /// The bytes of the device.
    pub(crate) fn range(&self) -> Range<u64> {
        let start = u64::from(self.block) * BLOCK_BYTES;
        start..start + u64::from(self.blocks) * BLOCK_BYTES
    }
}

/// A recording.
#[derive(Debug, Default)]
pub(crate) struct Touches {
    order: Vec<Touch>,
    /// For each device the blocks that were touched: disjoint ranges, first block to end.
    seen: BTreeMap<u16, BTreeMap<u32, u32>>,
    /// Whether there is something that was not kept on disk.
    pub(crate) is_new: bool,
}

impl Touches {
    /// Notes a read of blocks; what was touched before does not count again.
    pub(crate) fn touch(&mut self, at_ms: u32, device: u16, blocks: Range<u32>) {
        let mut at = blocks.start;
        while at < blocks.end && self.order.len() < TOUCHES_MAX {
            let seen = self.seen.entry(device).or_default();
            let before = seen.range(..=at).next_back().map(|(_, end)| *end);
            if let Some(end) = before.filter(|end| *end > at) {
                at = end;
                continue;
            }
            let next = seen.range(at..).next().map(|(start, _)| *start);
            let end = next.unwrap_or(blocks.end).min(blocks.end);
            self.note(at_ms, device, at..end);
            at = end;
        }
    }

    fn note(&mut self, at_ms: u32, device: u16, blocks: Range<u32>) {
        let seen = self.seen.entry(device).or_default();
        // Joined with what ends where this begins: a file that is read in pieces stays one range.
        let before = seen.range(..blocks.start).next_back();
        let joined = before.filter(|(_, end)| **end == blocks.start);
        let start = joined.map_or(blocks.start, |(start, _)| *start);
        seen.insert(start, blocks.end);
        self.is_new = true;
        if let Some(last) = self.order.last_mut()
            && last.device == device
            && last.block + last.blocks == blocks.start
            && at_ms.saturating_sub(last.at_ms) < JOIN_MS
        {
            last.blocks += blocks.end - blocks.start;
            return;
        }
        self.order.push(Touch {
            at_ms,
            device,
            block: blocks.start,
            blocks: blocks.end - blocks.start,
        });
    }

    /// All touches in order.
    pub(crate) fn order(&self) -> &[Touch] {
        &self.order
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.order.len() * 16);
        out.extend_from_slice(MAGIC);
        for touch in &self.order {
            for field in [
                touch.at_ms,
                touch.block,
                touch.blocks,
                u32::from(touch.device),
            ] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        seal(out)
    }

    /// A recording from its bytes; none if they are torn.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(unseal(bytes)?);
        if fields.take::<8>()? != *MAGIC {
            return None;
        }
        let mut touches = Self::default();
        while !fields.0.is_empty() {
            let (at_ms, block, blocks) = (fields.u32()?, fields.u32()?, fields.u32()?);
            let device = u16::try_from(fields.u32()?).ok()?;
            touches.touch(at_ms, device, block..block.checked_add(blocks)?);
        }
        touches.is_new = false;
        Some(touches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(touches: &Touches) -> Vec<(u16, u32, u32)> {
        let each = |touch: &Touch| (touch.device, touch.block, touch.block + touch.blocks);
        touches.order().iter().map(each).collect()
    }

    #[test]
    fn only_the_first_touch_of_a_block_counts() {
        let mut touches = Touches::default();
        touches.touch(1, 0, 10..20);
        touches.touch(2, 0, 5..30);
        touches.touch(3, 0, 5..30);
        touches.touch(4, 1, 10..11);
        assert_eq!(
            ranges(&touches),
            [(0, 10, 20), (0, 5, 10), (0, 20, 30), (1, 10, 11)]
        );
        touches.touch(5, 1, 11..12);
        assert_eq!(
            touches.order().len(),
            4,
            "a file that is read in pieces is one touch"
        );
    }

    #[test]
    fn a_recording_comes_back_as_it_was_and_a_torn_one_not_at_all() {
        let mut touches = Touches::default();
        for block in [7, 3, 900, 4, 5] {
            touches.touch(block, 2, block * 10..block * 10 + 3);
        }
        let bytes = touches.encode();
        let back = Touches::decode(&bytes).unwrap();
        assert_eq!(back.order(), touches.order());
        assert!(!back.is_new && touches.is_new);
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 4;
            assert!(Touches::decode(&bent).is_none() && Touches::decode(&bytes[..at]).is_none());
        }
    }

    #[test]
    fn a_recording_has_an_end() {
        let mut touches = Touches::default();
        for block in 0..200_000 {
            touches.touch(0, 0, block * 2..block * 2 + 1);
        }
        assert_eq!(touches.order().len(), TOUCHES_MAX);
    }
}
