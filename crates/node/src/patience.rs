//! When waiting for one thing after the other costs more than fetching everything.
//!
//! Nobody knows before how much of an image a container will read, and how far its reads lie apart. What is known is
//! how long readers have been waiting: once that is twice as long as fetching all that is missing takes, fetching it
//! is the better bet. Who reads little never gets there, and who reads everything loses no more than that.

use std::time::{Duration, Instant};

/// Of the time that passes, the part in which readers may wait for ever without anything being done about it.
const SHARE_DIVISOR: u32 = 4;
/// How many times as long as fetching everything readers wait before that is done.
const TIMES: u32 = 2;
/// Less is not worth it, however little is missing.
const LEAST: Duration = Duration::from_millis(500);
/// What a source is taken to deliver until that is seen, and at most, in bytes per second: a gigabit line.
pub(crate) const LINK_BYTES_PER_SECOND: u64 = 100 << 20;
/// How many times as much as one fetch seemed to get a link may carry: others were under way.
const RATE_TIMES: u64 = 4;
/// How often it is looked what is missing, at most.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long readers of one image waited lately.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// Up to when it is counted.
    until: Option<Instant>,
    waited: Duration,
    looked: Option<Instant>,
}

impl Patience {
    /// Somebody waited from `since` until now: says whether it is better to fetch what is missing. `missing` tells
    /// how many stored bytes that are, and is not asked often; `rate` how many bytes come in a millisecond, if that was
    /// seen.
    pub(crate) fn is_lost(
        &mut self,
        since: Instant,
        now: Instant,
        missing: impl FnOnce() -> u64,
        rate: impl FnOnce() -> Option<u64>,
    ) -> bool {
        let waited = self.note(since, now);
        let is_early = |looked: Instant| now.saturating_duration_since(looked) < LOOK_EVERY;
        if waited < LEAST || self.looked.is_some_and(is_early) {
            return false;
        }
        self.looked = Some(now);
        let seen = rate().map(|rate| rate.saturating_mul(1000 * RATE_TIMES));
        let per_second = seen.map_or(LINK_BYTES_PER_SECOND, |seen| {
            seen.clamp(1, LINK_BYTES_PER_SECOND)
        });
        let millis = missing().saturating_mul(1000) / per_second;
        waited >= Duration::from_millis(millis).saturating_mul(TIMES)
    }

    /// For how long anybody waited lately. Who waits at the same time as others is not counted twice.
    fn note(&mut self, since: Instant, now: Instant) -> Duration {
        let counted = self.until.map_or(since, |until| until.max(since));
        if let Some(until) = self.until {
            let passed = now.saturating_duration_since(until);
            self.waited = self.waited.saturating_sub(passed / SHARE_DIVISOR);
        }
        self.waited += now.saturating_duration_since(counted);
        self.until = self.until.max(Some(now));
        self.waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn who_waits_at_the_same_time_as_others_is_not_counted_twice() {
        let (begin, mut patience) = (Instant::now(), Patience::default());
        assert_eq!(patience.note(begin, begin + ms(100)), ms(100));
        assert_eq!(patience.note(begin, begin + ms(100)), ms(100));
        // Half of it was counted; and a quarter of the time that passed is forgiven.
        let waited = patience.note(begin + ms(50), begin + ms(200));
        assert_eq!(waited, ms(100 - 25 + 100));
    }

    #[test]
    fn who_waits_rarely_is_never_out_of_patience() {
        let (begin, mut patience) = (Instant::now(), Patience::default());
        for round in 0..10_000 {
            let since = begin + ms(round * 1000);
            let is_lost = patience.is_lost(since, since + ms(200), || 100 << 20, || None);
            assert!(!is_lost, "round {round}");
        }
    }

    /// When whoever waits 50 of 60 ms has had enough, with 100 MiB missing.
    fn lost_after(rate: Option<u64>) -> Duration {
        let (begin, mut patience) = (Instant::now(), Patience::default());
        let mut rounds = (0..).map(|round| begin + ms(round * 60));
        let missing = || 100 << 20;
        let found =
            rounds.find(|since| patience.is_lost(*since, *since + ms(50), missing, || rate));
        found.unwrap() - begin
    }

    #[test]
    fn who_waits_for_one_thing_after_the_other_is_soon() {
        // 100 MiB take a second.
        let at = lost_after(None);
        assert!((ms(3000)..ms(4000)).contains(&at), "{at:?}");
        // No line is taken for a faster one.
        assert!(lost_after(Some(1 << 30)) == at);
        // A fetch that gets 2 MB/s, of a line that carries no more than four times as much.
        let slow = lost_after(Some(2 << 10));
        assert!(slow > at * 10, "{slow:?}");
    }

    #[test]
    fn what_is_missing_is_not_looked_for_before_it_may_matter_and_not_often() {
        let (begin, mut patience) = (Instant::now(), Patience::default());
        let asked = std::cell::Cell::new(0);
        let missing = || {
            asked.set(asked.get() + 1);
            u64::MAX
        };
        assert!(!patience.is_lost(begin, begin + ms(499), missing, || None));
        assert_eq!(asked.get(), 0);
        for millis in 500..1000 {
            assert!(!patience.is_lost(begin, begin + ms(millis), missing, || None));
        }
        assert_eq!(asked.get(), 5);
        assert!(patience.is_lost(begin, begin + ms(1500), || 0, || None));
    }
}
