//! One bit per block, read without a lock.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

const WORD_BITS: u64 = 64;

/// One bit per block, in words.
///
/// Reading takes no lock. Setting and clearing is for one thread at a time, which the caller sees to:
/// the file's words must be written in the order in which these change.
#[derive(Debug)]
pub(crate) struct Bits {
    words: Box<[AtomicU64]>,
    count: AtomicU64,
}

impl Bits {
    /// Bits from words.
    pub(crate) fn new(words: &[u64]) -> Self {
        Self {
            words: words.iter().map(|word| AtomicU64::new(*word)).collect(),
            count: AtomicU64::new(count(words)),
        }
    }

    /// How many bits are set.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// All words, each as it is at some moment during the call.
    pub(crate) fn snapshot(&self) -> Vec<u64> {
        self.words
            .iter()
            .map(|word| word.load(Ordering::Acquire))
            .collect()
    }

    /// The words of `range`, which may reach past the end; what is past it is not returned.
    pub(crate) fn words(&self, range: Range<usize>) -> Vec<u64> {
        let end = range.end.min(self.words.len());
        let words = self.words.get(range.start..end).unwrap_or_default();
        words
            .iter()
            .map(|word| word.load(Ordering::Acquire))
            .collect()
    }

    /// Whether all bits of `blocks` are set. Blocks past the end count as not set.
    pub(crate) fn all(&self, blocks: Range<u64>) -> bool {
        spans(blocks).all(|(index, mask)| {
            self.words
                .get(index)
                .is_some_and(|word| word.load(Ordering::Acquire) & mask == mask)
        })
    }

    /// Sets the bits of `blocks`, all of which must exist.
    pub(crate) fn set(&self, blocks: Range<u64>) {
        let mut added = 0;
        for (index, mask) in spans(blocks) {
            if let Some(word) = self.words.get(index) {
                let before = word.fetch_or(mask, Ordering::AcqRel);
                added += u64::from((mask & !before).count_ones());
            }
        }
        self.count.fetch_add(added, Ordering::AcqRel);
    }

    /// Clears the bits of `blocks`, all of which must exist; how many were set.
    pub(crate) fn clear(&self, blocks: Range<u64>) -> u64 {
        let mut removed = 0;
        for (index, mask) in spans(blocks) {
            if let Some(word) = self.words.get(index) {
                let before = word.fetch_and(!mask, Ordering::AcqRel);
                removed += u64::from((mask & before).count_ones());
            }
        }
        self.count.fetch_sub(removed, Ordering::AcqRel);
        removed
    }

    /// Makes the bits what `words` say, no more of which may be set than are now.
    pub(crate) fn reset(&self, words: &[u64]) {
        for (word, value) in self.words.iter().zip(words) {
            word.store(*value, Ordering::Release);
        }
        self.count.store(count(words), Ordering::Release);
    }

    /// The runs of bits that are not set within `blocks`, in order, none touching the next.
    pub(crate) fn clear_runs(&self, blocks: Range<u64>) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for (index, mask) in spans(blocks) {
            let set = self
                .words
                .get(index)
                .map_or(0, |word| word.load(Ordering::Acquire));
            let mut clear = mask & !set;
            let base = widen(index) * WORD_BITS;
            while clear != 0 {
                let start = u64::from(clear.trailing_zeros());
                let length = u64::from((clear >> start).trailing_ones());
                match runs.last_mut() {
                    Some(last) if last.end == base + start => last.end += length,
                    _ => runs.push(base + start..base + start + length),
                }
                clear &= !ones(start, start + length);
            }
        }
        runs
    }
}

/// Sets the bits of `blocks` in `words`, whose first word is the word `first` of all.
pub(crate) fn set_in(words: &mut [u64], first: usize, blocks: Range<u64>) {
    change_in(words, first, blocks, |word, mask| word | mask);
}

/// Clears the bits of `blocks` in `words`, whose first word is the word `first` of all.
pub(crate) fn clear_in(words: &mut [u64], first: usize, blocks: Range<u64>) {
    change_in(words, first, blocks, |word, mask| word & !mask);
}

fn change_in(
    words: &mut [u64],
    first: usize,
    blocks: Range<u64>,
    change: impl Fn(u64, u64) -> u64,
) {
    for (index, mask) in spans(blocks) {
        if let Some(word) = index
            .checked_sub(first)
            .and_then(|index| words.get_mut(index))
        {
            *word = change(*word, mask);
        }
    }
}

/// How many bits are set in `words`.
pub(crate) fn count(words: &[u64]) -> u64 {
    words.iter().map(|word| u64::from(word.count_ones())).sum()
}

/// A count or position in memory, as it is counted on disk.
pub(crate) fn widen(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// A count or position on disk, as it is counted in memory; one that memory can't have becomes one that
/// no slice has.
pub(crate) fn narrow(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// The words that hold the bits of `blocks`, each with the mask of those bits.
fn spans(blocks: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let words = if blocks.is_empty() {
        0..0
    } else {
        blocks.start / WORD_BITS..blocks.end.div_ceil(WORD_BITS)
    };
    words.map(move |word| {
        let base = word * WORD_BITS;
        let start = blocks.start.saturating_sub(base);
        let end = (blocks.end - base).min(WORD_BITS);
        (narrow(word), ones(start, end))
    })
}

/// A word whose bits `start..end` are set; `start < 64`, `start < end <= 64`.
fn ones(start: u64, end: u64) -> u64 {
    (u64::MAX >> (WORD_BITS - (end - start))) << start
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn runs_join_across_words() {
        let bits = Bits::new(&[0; 4]);
        assert_eq!(bits.clear_runs(0..256), vec![0..256]);
        bits.set(60..70);
        assert_eq!(bits.clear_runs(0..256), vec![0..60, 70..256]);
        assert_eq!(bits.clear_runs(60..70), vec![]);
        assert_eq!(bits.clear_runs(69..71), vec![70..71]);
        assert_eq!(bits.clear_runs(5..5), vec![]);
        assert_eq!(bits.count(), 10);
    }

    #[test]
    fn blocks_past_the_end_are_not_set() {
        let bits = Bits::new(&[u64::MAX]);
        assert!(bits.all(0..64));
        assert!(!bits.all(0..65));
        assert!(bits.all(70..70));
    }

    proptest! {
        #[test]
        fn bits_do_what_a_vector_of_bool_does(
            ranges in prop::collection::vec((0_u64..300, 0_u64..300, any::<bool>()), 0..12),
            asked in (0_u64..300, 0_u64..300),
        ) {
            let bits = Bits::new(&[0; 5]);
            let mut model = vec![false; 320];
            let mut words = [0; 5];
            for (start, end, set) in ranges {
                let slice = &mut model[narrow(start)..narrow(end.max(start))];
                if set {
                    bits.set(start..end);
                    set_in(&mut words, 0, start..end);
                } else {
                    let removed = bits.clear(start..end);
                    prop_assert_eq!(removed, widen(slice.iter().filter(|set| **set).count()));
                    clear_in(&mut words, 0, start..end);
                }
                slice.fill(set);
            }
            let asked = asked.0..asked.1.max(asked.0);
            let slice = &model[narrow(asked.start)..narrow(asked.end)];
            prop_assert_eq!(bits.all(asked.clone()), slice.iter().all(|set| *set));
            prop_assert_eq!(bits.count(), widen(model.iter().filter(|set| **set).count()));
            prop_assert_eq!(bits.snapshot(), words.to_vec());
            let mut missing = vec![false; 320];
            let mut last_end = None;
            for run in bits.clear_runs(asked.clone()) {
                prop_assert!(run.start < run.end && last_end < Some(run.start));
                last_end = Some(run.end);
                missing[narrow(run.start)..narrow(run.end)].fill(true);
            }
            for block in asked {
                prop_assert_eq!(missing[narrow(block)], !model[narrow(block)]);
            }
        }
    }
}
