//! Which hosts failed lately.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a host that failed is asked after all others: long enough that its time-outs are no burden to
/// readers, short enough that one which was restarted is used again soon.
pub(super) const FAILED_FOR: Duration = Duration::from_secs(30);

/// Failures remembered at once. There are as many as hosts in files.
const FAILURES_MAX: usize = 1024;

/// When hosts failed last.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<BTreeMap<String, Instant>>);

impl Health {
    pub(super) fn failed(&self, host: &str, now: Instant) {
        let mut failures = self.0.lock();
        if failures.len() >= FAILURES_MAX {
            failures.retain(|_, at| now.saturating_duration_since(*at) < FAILED_FOR);
        }
        if failures.len() < FAILURES_MAX {
            failures.insert(host.to_owned(), now);
        }
    }

    pub(super) fn works(&self, host: &str) {
        self.0.lock().remove(host);
    }

    pub(super) fn is_well(&self, host: &str, now: Instant) -> bool {
        let failures = self.0.lock();
        let failed = failures.get(host);
        failed.is_none_or(|at| now.saturating_duration_since(*at) >= FAILED_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_forgotten_after_a_while_or_a_success() {
        let (health, now) = (Health::default(), Instant::now());
        assert!(health.is_well("a", now));
        health.failed("a", now);
        assert!(!health.is_well("a", now + FAILED_FOR / 2));
        assert!(health.is_well("b", now));
        assert!(health.is_well("a", now + FAILED_FOR));
        health.works("a");
        assert!(health.is_well("a", now));
    }
}
