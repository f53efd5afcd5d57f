//! The planner's limits.

/// Limits, each with a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a fault is tried for, in milliseconds. 30 s: longer than a registry's restart or a
    /// load balancer's failover, shorter than what makes a person or a health check kill the reader.
    pub deadline_ms: u64,
    /// How long a fault is tried for, in milliseconds, when one was given up since the source delivered
    /// last. A reader raises dozens of faults one after the other before it sees the first error.
    pub probe_ms: u64,
    /// First wait after a source failed, in milliseconds; doubled each time.
    pub backoff_min_ms: u64,
    /// Longest wait after a source failed, in milliseconds: how late a recovery is noticed.
    pub backoff_max_ms: u64,
    /// Attempts at what is corrupt or refused.
    pub attempts_max: u8,
    /// Fetches under way from one source. One connection rarely fills a link, and where each takes its
    /// time, a start needs many; more than some ten only compete.
    pub fetches_per_source_max: usize,
    /// The same from a source that is far away, where each takes its time and bytes are few: more wait side by
    /// side. As many as two browsers open.
    pub far_fetches_per_source_max: usize,
    /// Fetches under way in all, but that a source without any may always start one: as many as two sources
    /// that are far away have.
    pub fetches_max: usize,
    /// Stored bytes under way in all, from which on no fetch is started, likewise: what is held in memory. One
    /// source has half of that.
    pub bytes_under_way_max: u64,
    /// Stored bytes of a fetch, unless one extent alone is larger: beyond this a larger request is no
    /// faster, and its first reader waits for all of it.
    pub fetch_bytes_max: u64,
    /// The same for what nobody waits for and nobody is expected to: fewer, larger requests.
    pub background_fetch_bytes_max: u64,
    /// Stored bytes between two extents that are read along rather than asked for apart.
    pub gap_bytes_max: u64,
    /// The same for prefetches: what a link of 100 MB/s delivers in 3 ms, less than any round trip
    /// beyond the own network.
    pub prefetch_gap_bytes_max: u64,
    /// Files read one after the other, or near each other, before what follows or lies between is fetched
    /// along: a reader of one file gets
    /// what covers it and no more, however large it is.
    pub sequential_files_min: usize,
    /// Stored bytes that are fetched ahead of a sequential reader at least: one fetch.
    pub readahead_bytes_min: u64,
    /// Stored bytes that are fetched ahead of a sequential reader at most: what a link of 100 MB/s
    /// delivers in the round trip of 80 ms that goes around half of the world.
    pub readahead_bytes_max: u64,
    /// Milliseconds to a source and back from which on what lies around a miss is fetched along. Below, as in
    /// the own network, asking again is cheap, and what nobody reads is not worth its bytes.
    pub far_ms: u64,
    /// Stored bytes around a miss that are fetched along at most.
    pub around_bytes_max: u64,
    /// How many bytes are fetched along for each that was asked for, at most: a reader of little here and
    /// there in a large image does not get all of it.
    pub around_factor_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline_ms: 30_000,
            probe_ms: 1_000,
            backoff_min_ms: 50,
            backoff_max_ms: 2_000,
            attempts_max: 3,
            fetches_per_source_max: 12,
            far_fetches_per_source_max: 24,
            fetches_max: 48,
            bytes_under_way_max: 24 << 20,
            fetch_bytes_max: 1 << 20,
            background_fetch_bytes_max: 4 << 20,
            gap_bytes_max: 16 << 10,
            prefetch_gap_bytes_max: 256 << 10,
            sequential_files_min: 8,
            readahead_bytes_min: 1 << 20,
            readahead_bytes_max: 8 << 20,
            far_ms: 15,
            around_bytes_max: 2 << 20,
            around_factor_max: 4,
        }
    }
}
