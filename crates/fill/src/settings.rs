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
    /// Fetches under way in one device. One connection rarely fills a link; beyond a handful they only
    /// compete.
    pub fetches_per_device_max: usize,
    /// Fetches under way in all. Times [`Self::fetch_bytes_max`]: the stored bytes held in memory.
    pub fetches_max: usize,
    /// Stored bytes of a fetch, unless one extent alone is larger: beyond this a larger request is no
    /// faster, and its first reader waits for all of it.
    pub fetch_bytes_max: u64,
    /// Stored bytes between two extents that are read along rather than asked for apart.
    pub gap_bytes_max: u64,
    /// Files read one after the other before what follows is fetched along: a reader of one file gets
    /// what covers it and no more, however large it is.
    pub sequential_files_min: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline_ms: 30_000,
            probe_ms: 1_000,
            backoff_min_ms: 50,
            backoff_max_ms: 2_000,
            attempts_max: 3,
            fetches_per_device_max: 4,
            fetches_max: 16,
            fetch_bytes_max: 2 << 20,
            gap_bytes_max: 16 << 10,
            sequential_files_min: 8,
        }
    }
}
