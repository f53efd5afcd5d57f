//! Images mounted lazily by the real program, read by real readers, while everything around them fails.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests are tests: what fails in them fails the test"
)]

mod backends;
mod collected;
mod crowded;
mod dictionary;
mod entrusted;
mod estargz;
mod failed_start;
mod failing_disk;
mod foreign;
mod full_disk;
mod harness;
mod heals;
mod mapped;
mod prefetched;
mod registries;
mod serves;
mod shared;
mod stacked;
mod survives;
mod transports;
