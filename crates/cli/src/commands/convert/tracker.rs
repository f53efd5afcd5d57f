//! From what the packer tells to what a person sees.

use std::sync::atomic::{AtomicU64, Ordering};

use draught_digest::Digest;
use draught_packer::LayerReport;

use crate::args::Progress;
use crate::progress::Reporter;
use crate::units::Size;

/// Follows a conversion.
#[derive(Debug)]
pub(crate) struct Tracker {
    reporter: Reporter,
    read_bytes: AtomicU64,
    /// Of the layers that have begun, as far as it is known.
    total_bytes: AtomicU64,
}

impl Tracker {
    /// Nothing has happened yet. `how` has been resolved.
    pub(crate) fn new(how: Progress) -> Self {
        Self {
            reporter: Reporter::new("convert", how),
            read_bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
        }
    }
}

impl draught_packer::Progress for Tracker {
    fn layer_started(&self, layer: usize, stored_bytes: Option<u64>) {
        self.total_bytes
            .fetch_add(stored_bytes.unwrap_or(0), Ordering::Relaxed);
        self.reporter.part(format!("layer {}", layer + 1));
    }

    fn layer_read(&self, _layer: usize, bytes: u64) {
        let read = self.read_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let total = Some(self.total_bytes.load(Ordering::Relaxed)).filter(|total| *total >= read);
        self.reporter.bytes(read, total);
    }

    fn layer_packed(&self, layer: usize, report: &LayerReport) {
        let sizes = format!(
            "{} became {}",
            Size(report.decoded_bytes),
            Size(report.blob_bytes)
        );
        self.reporter.part(format!("layer {}: {sizes}", layer + 1));
    }

    fn layer_cached(&self, layer: usize, report: &LayerReport) {
        let size = Size(report.decoded_bytes);
        self.reporter
            .part(format!("layer {}: cached, {size}", layer + 1));
    }

    fn layer_stays_plain(&self, layer: usize, why: &str) {
        let layer = layer + 1;
        tracing::warn!(
            layer,
            why,
            "a layer can't be eStargz and stays plain: the image is not lazy"
        );
    }

    fn cache_failed(&self, cache: &str, why: &str) {
        tracing::warn!(cache, why, "a build cache is not used as it should be");
    }

    fn push_started(&self, digest: &Digest, bytes: u64) {
        self.reporter
            .part(format!("push {}, {}", short(digest), Size(bytes)));
    }

    fn push_done(&self, digest: &Digest, bytes: u64) {
        let how = if bytes == 0 { "was there" } else { "pushed" };
        self.reporter.part(format!("{how}: {}", short(digest)));
    }
}

/// Enough of a digest to tell it from others on the screen.
fn short(digest: &Digest) -> String {
    digest.hex().chars().take(12).collect()
}
