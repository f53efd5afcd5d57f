//! A registry behind a proxy that counts, and can be a slow link.

use std::collections::BTreeMap;
use std::ops::Range;

use draught_testkit::FaultProxy;
use draught_testkit::fault_proxy::{Kind, Logged};

use crate::bench::draught::Registry;
use crate::bench::results::number;

/// The proxy.
#[derive(Debug)]
pub(crate) struct Counted {
    proxy: FaultProxy,
}

/// What passed since somebody last looked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drawn {
    /// Requests of all kinds.
    pub(crate) requests: f64,
    /// Bytes of all answers.
    pub(crate) bytes: f64,
    /// Bytes of blobs among them.
    pub(crate) blob_bytes: f64,
    /// Bytes of blobs that were sent before.
    pub(crate) again_bytes: f64,
    /// Bytes of all that was sent the other way: pushed.
    pub(crate) pushed_bytes: f64,
}

impl Counted {
    /// Counts what is drawn from a registry.
    pub(crate) fn before(registry: &Registry) -> Self {
        Self {
            proxy: FaultProxy::start(registry.addr()),
        }
    }

    /// The proxy itself.
    pub(crate) fn proxy(&self) -> &FaultProxy {
        &self.proxy
    }

    /// The reference of an image through the proxy.
    pub(crate) fn reference(&self, name: &str) -> String {
        format!("{}/{name}:latest", self.proxy.addr())
    }

    /// What passed since this was last called.
    pub(crate) fn drawn(&self) -> Drawn {
        let (counts, log) = (self.proxy.counts(), self.proxy.log());
        self.proxy.reset_counts();
        let (total, blobs) = (counts.total(), counts.blobs());
        Drawn {
            requests: number(total.requests),
            bytes: number(total.sent_bytes),
            blob_bytes: number(blobs.sent_bytes),
            again_bytes: number(again_bytes(&log)),
            pushed_bytes: number(total.received_bytes),
        }
    }
}

/// The bytes of blobs that were sent more than once: each time but the first.
fn again_bytes(log: &[Logged]) -> u64 {
    let mut sent: BTreeMap<&str, Vec<Range<u64>>> = BTreeMap::new();
    for request in log {
        if request.method == "GET" && Kind::of(&request.path) == Kind::Blob {
            let start = request.range.as_deref().map_or(Some(0), range_start);
            let start = start.unwrap_or(0);
            let range = start..start + request.sent_bytes;
            sent.entry(&request.path).or_default().push(range);
        }
    }
    sent.into_values().map(overlap).sum()
}

/// Where the first range of a `Range` header begins.
fn range_start(header: &str) -> Option<u64> {
    let (start, _) = header.strip_prefix("bytes=")?.split_once('-')?;
    start.parse().ok()
}

/// By how much these are longer than what they cover together.
fn overlap(mut ranges: Vec<Range<u64>>) -> u64 {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let (mut end, mut overlap) = (0, 0);
    for range in ranges {
        overlap += range.end.min(end).saturating_sub(range.start);
        end = end.max(range.end);
    }
    overlap
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_twice_is_counted_once() {
        #[track_caller]
        fn check(ranges: &[Range<u64>], expect: u64) {
            assert_eq!(overlap(ranges.to_vec()), expect, "{ranges:?}");
        }
        check(&[], 0);
        check(&[0..10, 10..20], 0);
        check(&[10..20, 0..10, 5..15], 10);
        check(&[0..10, 0..10, 0..10], 20);
        check(&[0..100, 10..20, 15..30], 25);
    }

    #[test]
    fn a_range_header_says_where_it_begins() {
        assert_eq!(range_start("bytes=4096-8191"), Some(4096));
        assert_eq!(range_start("bytes=7-"), Some(7));
        assert_eq!(range_start("items=7-8"), None);
    }
}
