//! A slow network: delay and bandwidth that all connections share.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Bytes sent at a time over a slow link: small, so that streams share it fairly.
pub(super) const SLICE_BYTES: usize = 16 << 10;

/// How far a sender may catch up that was woken late: timers are coarser than a slice of a fast
/// link takes.
const CATCH_UP: Duration = Duration::from_millis(5);

/// What the network between clients and proxy is like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Link {
    /// The time from a request to the first byte of its answer; a new connection costs it once more.
    pub round_trip: Duration,
    /// Bytes of response bodies per second, over all connections together; `None` is no limit.
    pub bytes_per_s: Option<u64>,
}

/// Spaces bytes out in time.
#[derive(Debug)]
pub(super) struct Pacer {
    /// When everything granted so far will have been sent.
    free_at: Mutex<Instant>,
}

impl Pacer {
    pub(super) fn new() -> Self {
        Self {
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// Waits until so many bytes have passed at this rate.
    pub(super) async fn pass(&self, bytes: usize, bytes_per_s: u64) {
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(bytes_per_s.max(1));
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let until = {
            let mut free_at = self.free_at.lock();
            let now = Instant::now();
            let until = (*free_at).max(now.checked_sub(CATCH_UP).unwrap_or(now)) + takes;
            *free_at = until;
            until
        };
        tokio::time::sleep_until(until).await;
    }
}
