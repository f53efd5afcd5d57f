//! How it goes with a source: patience and back-off, and how much is asked of it at once.

use crate::pace::Pace;
use crate::settings::Settings;
use crate::{Failure, Priority};

/// A source.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Feeds that are read from it.
    pub(crate) feeds: usize,
    /// Fetches under way.
    pub(crate) under_way: usize,
    /// Stored bytes of these.
    pub(crate) bytes_under_way: u64,
    /// No fetch before this time.
    pub(crate) blocked_until_ms: u64,
    /// Failures in a row.
    failures: u32,
    /// Why a fault was given up last, if the source has not delivered since: who comes now is not made
    /// to wait as long as the first was.
    pub(crate) given_up: Option<Failure>,
    /// Whether anything was asked of it since it last began to rest because faults were given up.
    pub(crate) is_tried: bool,
    /// How far away it is.
    pub(crate) pace: Pace,
}

impl Source {
    /// Whether it rests after a failure.
    pub(crate) fn is_blocked(&self, now_ms: u64) -> bool {
        self.blocked_until_ms > now_ms
    }

    /// Whether one more fetch of that priority may be asked of it, when `total` with so many
    /// stored bytes are under way everywhere.
    pub(crate) fn has_room(
        &self,
        priority: Priority,
        (total, bytes): (usize, u64),
        settings: &Settings,
    ) -> bool {
        // However slow all others are: one is never too many.
        if self.under_way == 0 && priority == Priority::Demand {
            return true;
        }
        // No source takes what others need: half of the bytes is for them.
        let bytes_max = settings.bytes_under_way_max;
        if bytes >= bytes_max || self.bytes_under_way >= bytes_max / 2 {
            return false;
        }
        let own = if self.pace.is_far(settings) {
            settings.far_fetches_per_source_max
        } else {
            settings.fetches_per_source_max
        };
        let all = settings.fetches_max;
        // What nobody waits for leaves room for those that somebody will wait for.
        let (own, all) = match priority {
            Priority::Demand => (own, all),
            Priority::Prefetch => (own.saturating_sub(1).max(1), all * 3 / 4),
            Priority::Background => (own.div_ceil(3), all / 2),
        };
        self.under_way < own && total < all
    }

    /// Learns how a fetch ended.
    pub(crate) fn learn(
        &mut self,
        now_ms: u64,
        failures: impl Iterator<Item = Failure>,
        settings: &Settings,
    ) {
        let mut asked_ms = None;
        let mut failed = false;
        for failure in failures {
            match failure {
                Failure::Unavailable { retry_after_ms } => {
                    failed = true;
                    asked_ms = asked_ms.max(retry_after_ms);
                }
                Failure::Refused => failed = true,
                // The source answers; what it answers is counted extent by extent.
                Failure::Corrupt | Failure::NoSpace | Failure::Device => {}
            }
        }
        if !failed {
            self.failures = 0;
            self.blocked_until_ms = 0;
            self.given_up = None;
            return;
        }
        let doubled = settings
            .backoff_min_ms
            .saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let wait_ms = asked_ms
            .unwrap_or(0)
            .max(doubled)
            .min(settings.backoff_max_ms);
        self.blocked_until_ms = now_ms.saturating_add(wait_ms);
    }

    /// A fault was given up because of it.
    pub(crate) fn give_up(&mut self, now_ms: u64, failure: Failure, settings: &Settings) {
        self.given_up = Some(failure);
        // It rests once for each time that it was tried: were every fault that is given up to begin the rest
        // anew, a source with enough readers would never be asked again.
        if self.is_tried && !self.is_blocked(now_ms) {
            self.blocked_until_ms = now_ms.saturating_add(settings.backoff_max_ms);
            self.is_tried = false;
        }
    }
}
