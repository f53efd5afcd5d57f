//! What the picture says in numbers: sums over a trace.

use std::collections::BTreeMap;

use draught_node::ImageTrace;

/// What a file was waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FileWaits {
    /// How many reads waited.
    pub(crate) count: u64,
    /// How many bytes they wanted.
    pub(crate) bytes: u64,
    /// How long they waited together, in microseconds.
    pub(crate) total_us: u64,
    /// How long the longest did.
    pub(crate) longest_us: u64,
}

/// The files with the longest waits, the longest first.
pub(crate) fn waits_by_file(trace: &ImageTrace, most: usize) -> Vec<(&str, FileWaits)> {
    let mut files: BTreeMap<&str, FileWaits> = BTreeMap::new();
    for fault in &trace.faults {
        let file = files.entry(&fault.path).or_default();
        file.count += 1;
        file.bytes = file.bytes.saturating_add(fault.bytes);
        file.total_us = file.total_us.saturating_add(fault.waited_us);
        file.longest_us = file.longest_us.max(fault.waited_us);
    }
    let mut files: Vec<_> = files.into_iter().collect();
    // Files of equal waits stay in the order of their paths.
    files.sort_by_key(|(_, waits)| std::cmp::Reverse(waits.total_us));
    files.truncate(most);
    files
}

/// All waits together, and the longest, in microseconds.
pub(crate) fn waits(trace: &ImageTrace) -> (u64, u64) {
    trace
        .faults
        .iter()
        .fold((0_u64, 0), |(total, longest), fault| {
            (
                total.saturating_add(fault.waited_us),
                longest.max(fault.waited_us),
            )
        })
}

/// What came from a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SourceSum {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
}

/// What came from each source, most bytes first.
pub(crate) fn sources(trace: &ImageTrace) -> Vec<(&str, SourceSum)> {
    let mut sources: BTreeMap<&str, SourceSum> = BTreeMap::new();
    for fetch in &trace.fetches {
        let blob = usize::try_from(fetch.blob).ok();
        let blob = blob.and_then(|blob| trace.blobs.get(blob));
        let name = blob.map_or("", |blob| &blob.source);
        let sum = sources.entry(name).or_default();
        sum.requests += 1;
        if fetch.ok {
            sum.bytes = sum.bytes.saturating_add(fetch.bytes);
        }
    }
    let mut sources: Vec<_> = sources.into_iter().collect();
    sources.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.bytes));
    sources
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn waits_of_a_file_are_summed() {
        let mut trace = example::empty();
        trace.faults = vec![
            example::fault(0, 10_000, "a"),
            example::fault(1, 30_000, "b"),
            example::fault(2, 25_000, "a"),
        ];
        let files = waits_by_file(&trace, 10);
        assert_eq!(files[0].0, "a");
        assert_eq!(files[0].1.total_us, 35_000);
        assert_eq!(files[0].1.longest_us, 25_000);
        assert_eq!(files[1].0, "b");
        assert_eq!(waits_by_file(&trace, 1).len(), 1);
        assert_eq!(waits(&trace), (65_000, 30_000));
    }
}
