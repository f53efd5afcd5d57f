//! How long reads waited, in few numbers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper ends of the buckets in microseconds: powers of two from 64 µs, which is what answering costs, to
/// 67 s, which is more than a read waits.
const BUCKETS: usize = 21;
const FIRST_US: u64 = 64;

/// Counts of waits by how long they were.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Latency {
    pub(crate) fn add(&self, waited: Duration) {
        let us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        let bucket = bounds()
            .position(|bound| us <= bound)
            .unwrap_or(BUCKETS - 1);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(crate) fn sum_us(&self) -> u64 {
        self.sum_us.load(Ordering::Relaxed)
    }

    /// The upper end of each bucket in microseconds, with how many waits were in it or in one before.
    pub(crate) fn cumulative(&self) -> Vec<(u64, u64)> {
        let mut sum = 0;
        let counts = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        let cumulative = counts.map(|count| {
            sum += count;
            sum
        });
        bounds().zip(cumulative).collect()
    }

    /// The time in microseconds within which this share of the waits ended; 0 if there were none.
    pub(crate) fn quantile_us(&self, share: f64) -> u64 {
        let cumulative = self.cumulative();
        let all = cumulative.last().map_or(0, |(_, count)| *count);
        #[expect(
            clippy::cast_precision_loss,
            reason = "counts of waits are far below 2^52"
        )]
        let enough = |count: u64| count > 0 && count as f64 >= share * all as f64;
        let found = cumulative.iter().find(|(_, count)| enough(*count));
        found.map_or(0, |(bound, _)| *bound)
    }
}

fn bounds() -> impl Iterator<Item = u64> {
    (0..BUCKETS).map(|bucket| FIRST_US << bucket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_ends_of_buckets() {
        let latency = Latency::default();
        assert_eq!(latency.quantile_us(0.5), 0);
        for ms in [1, 1, 1, 100] {
            latency.add(Duration::from_millis(ms));
        }
        assert_eq!(latency.quantile_us(0.5), 1024);
        assert_eq!(latency.quantile_us(0.99), 131_072);
        assert_eq!(latency.sum_us(), 103_000);
        latency.add(Duration::from_secs(1 << 40));
        assert_eq!(latency.cumulative().last().unwrap().1, 5);
    }
}
