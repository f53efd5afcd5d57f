//! How far away a source is, and how much of what lies around a miss costs nothing while it is waited for.

use crate::settings::Settings;

/// Stored bytes of a fetch up to which its time is the way there and back.
const SMALL_BYTES: u64 = 64 << 10;
/// Stored bytes of a fetch from which on its time tells how much a link carries.
const LARGE_BYTES: u64 = 256 << 10;
/// What a link is taken to carry until that is known, in bytes per millisecond: 10 MB/s.
const RATE_UNKNOWN: u64 = 10 << 10;

/// What was seen of a source.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    /// Eighths of milliseconds from asking for little to having it. One quick answer proves that the source is
    /// near; a slow one counts an eighth, for it may have been busy, or we were.
    latency_eighths: Option<u64>,
    /// Bytes per millisecond beyond that; the last fetch counts a quarter.
    rate: Option<u64>,
}

impl Pace {
    /// A fetch of so many bytes took so long.
    pub(crate) fn note(&mut self, bytes: u64, took_ms: u64) {
        if bytes <= SMALL_BYTES {
            let new = took_ms.saturating_mul(8);
            let slow = |before: u64| before - before / 8 + took_ms;
            let blended = self
                .latency_eighths
                .map_or(new, |before| new.min(slow(before)));
            self.latency_eighths = Some(blended);
        } else if bytes >= LARGE_BYTES {
            // Others share the link: at worst it is taken for a slower one than it is.
            let beyond_ms = took_ms.saturating_sub(self.latency_ms()).max(1);
            let new = bytes / beyond_ms;
            let blended = self
                .rate
                .map_or(new, |before| before - before / 4 + new / 4);
            self.rate = Some(blended);
        }
    }

    /// It is about so far away, as somebody else saw it; what was seen here counts more.
    pub(crate) fn expect(&mut self, latency_ms: u64) {
        self.latency_eighths
            .get_or_insert(latency_ms.saturating_mul(8));
    }

    /// Whether waiting for it costs more than asking for more at once.
    pub(crate) fn is_far(&self, settings: &Settings) -> bool {
        self.latency_ms() >= settings.far_ms
    }

    /// Bytes per millisecond that its link carries, if that was seen; at worst it is taken for a slower one.
    pub(crate) fn rate(&self) -> Option<u64> {
        self.rate
    }

    fn latency_ms(&self) -> u64 {
        self.latency_eighths.unwrap_or(0) / 8
    }

    /// How many stored bytes around a miss are worth asking for along with it: what takes half as long to
    /// come as the way there and back. None for a source that is near: asking it again is cheap.
    pub(crate) fn window(&self, settings: &Settings) -> u64 {
        if !self.is_far(settings) {
            return 0;
        }
        let rate = self.rate.unwrap_or(RATE_UNKNOWN);
        (rate.saturating_mul(self.latency_ms()) / 2).min(settings.around_bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_source_has_no_window_and_a_far_one_what_its_link_carries() {
        let settings = Settings::default();
        let mut pace = Pace::default();
        assert_eq!(pace.window(&settings), 0);
        for _ in 0..20 {
            pace.note(10_000, 2);
        }
        assert_eq!(pace.window(&settings), 0);
        pace.note(10_000, 50);
        assert_eq!(pace.window(&settings), 0, "one slow answer proves nothing");
        for _ in 0..40 {
            pace.note(10_000, 50);
        }
        let unknown = pace.window(&settings);
        assert!((180_000..300_000).contains(&unknown), "{unknown}");
        // 100 MB/s, then a link that carries a hundredth of it.
        for _ in 0..20 {
            pace.note(1 << 20, 60);
        }
        assert_eq!(pace.window(&settings), settings.around_bytes_max);
        for _ in 0..40 {
            pace.note(1 << 20, 1050);
        }
        let slow = pace.window(&settings);
        assert!((20_000..60_000).contains(&slow), "{slow}");
    }
}
