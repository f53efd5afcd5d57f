//! What passed: a log of requests, and sums that never lose one.

use std::collections::{BTreeMap, VecDeque};
use std::ops::AddAssign;
use std::time::{Duration, Instant};

/// Requests that the log remembers; the sums go on when older ones are dropped.
const LOG_MAX: usize = 100_000;

/// What a path of a registry names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A blob.
    Blob,
    /// A manifest or index.
    Manifest,
    /// An upload, or the place where one begins.
    Upload,
    /// The proxy's own token server.
    Token,
    /// Anything else: tags, referrers, the catalog, the base.
    Other,
}

impl Kind {
    /// The kind of a path without its query.
    #[must_use]
    pub fn of(path: &str) -> Self {
        if path == "/token" {
            Self::Token
        } else if path.contains("/blobs/uploads") {
            Self::Upload
        } else if path.contains("/blobs/") {
            Self::Blob
        } else if path.contains("/manifests/") {
            Self::Manifest
        } else {
            Self::Other
        }
    }
}

/// A sum over requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Count {
    /// Requests, also those that were refused or broken off.
    pub requests: u64,
    /// Bytes of request bodies that clients sent.
    pub received_bytes: u64,
    /// Bytes of response bodies that were handed to clients.
    pub sent_bytes: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
    }
}

/// Sums by method and path, as they stood at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    by_resource: BTreeMap<(String, String), Count>,
}

impl Counts {
    /// Everything.
    #[must_use]
    pub fn total(&self) -> Count {
        self.sum(|_, _| true)
    }

    /// Requests for blobs, by any method.
    #[must_use]
    pub fn blobs(&self) -> Count {
        self.of(Kind::Blob)
    }

    /// Requests for manifests, by any method.
    #[must_use]
    pub fn manifests(&self) -> Count {
        self.of(Kind::Manifest)
    }

    /// Requests of one kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> Count {
        self.sum(|_, path| Kind::of(path) == kind)
    }

    /// Requests by this method whose path contains `part`.
    #[must_use]
    pub fn matching(&self, method: &str, part: &str) -> Count {
        self.sum(|other, path| other == method && path.contains(part))
    }

    /// The sum over all methods and paths that `wanted` is true for.
    #[must_use]
    pub fn sum(&self, wanted: impl Fn(&str, &str) -> bool) -> Count {
        let mut sum = Count::default();
        for ((method, path), count) in &self.by_resource {
            if wanted(method, path) {
                sum += *count;
            }
        }
        sum
    }

    /// Every method and path with its sum, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, Count)> {
        self.by_resource
            .iter()
            .map(|((method, path), count)| (method.as_str(), path.as_str(), *count))
    }

    /// What came since `earlier`, a snapshot of the same proxy.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut by_resource = self.by_resource.clone();
        by_resource.retain(|resource, count| {
            let before = earlier
                .by_resource
                .get(resource)
                .copied()
                .unwrap_or_default();
            count.requests -= before.requests;
            count.received_bytes -= before.received_bytes;
            count.sent_bytes -= before.sent_bytes;
            *count != Count::default()
        });
        Self { by_resource }
    }
}

/// One request, as far as it has got.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Logged {
    /// When it came, counted from the start of the proxy.
    pub at: Duration,
    /// Its method.
    pub method: String,
    /// Its path, without the query.
    pub path: String,
    /// The query, without the question mark.
    pub query: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// The status it was answered with, if it was.
    pub status: Option<u16>,
    /// Bytes of its body.
    pub received_bytes: u64,
    /// Bytes of the response's body that were handed to the client.
    pub sent_bytes: u64,
    /// Whether it carried credentials.
    pub authorized: bool,
    /// Whether a rule changed anything about it.
    pub faulty: bool,
    /// Whether it has ended, well or not; never, if its connection was cut off from here.
    pub ended: bool,
}

/// Names a request in the log.
pub(super) type LogId = u64;

/// Log and sums.
#[derive(Debug)]
pub(super) struct Recorder {
    begun: Instant,
    counts: Counts,
    log: VecDeque<Logged>,
    /// The name of the log's first entry.
    first: LogId,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            counts: Counts::default(),
            log: VecDeque::new(),
            first: 0,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts.clone()
    }

    pub(super) fn log(&self) -> Vec<Logged> {
        self.log.iter().cloned().collect()
    }

    pub(super) fn begin(&mut self, method: &str, target: &str, range: Option<&str>) -> LogId {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
            self.first += 1;
        }
        self.log.push_back(Logged {
            at: self.begun.elapsed(),
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            range: range.map(str::to_owned),
            status: None,
            received_bytes: 0,
            sent_bytes: 0,
            authorized: false,
            faulty: false,
            ended: false,
        });
        let resource = (method.to_owned(), path.to_owned());
        self.counts
            .by_resource
            .entry(resource)
            .or_default()
            .requests += 1;
        self.first + self.log.len() as u64 - 1
    }

    pub(super) fn entry(&mut self, id: LogId) -> Option<&mut Logged> {
        let index = usize::try_from(id.checked_sub(self.first)?).ok()?;
        self.log.get_mut(index)
    }

    pub(super) fn received(&mut self, id: LogId, bytes: usize) {
        self.add(id, bytes as u64, 0);
    }

    pub(super) fn sent(&mut self, id: LogId, bytes: usize) {
        self.add(id, 0, bytes as u64);
    }

    fn add(&mut self, id: LogId, received_bytes: u64, sent_bytes: u64) {
        let Some(entry) = self.entry(id) else {
            return;
        };
        entry.received_bytes += received_bytes;
        entry.sent_bytes += sent_bytes;
        let resource = (entry.method.clone(), entry.path.clone());
        let count = self.counts.by_resource.entry(resource).or_default();
        count.received_bytes += received_bytes;
        count.sent_bytes += sent_bytes;
    }
}
