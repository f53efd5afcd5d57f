//! Who wants to know how far it is.

use draught_digest::Digest;
use draught_oci::Platform;

/// A layer as it was packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerReport {
    /// Its stored size in bytes, as it was read.
    pub stored_bytes: u64,
    /// Its digest; `None` for a directory.
    pub digest: Option<Digest>,
    /// The digest of its archive; `None` for a directory.
    pub diff_id: Option<Digest>,
    /// Bytes of its archive (of its files, for a directory).
    pub decoded_bytes: u64,
    /// Its entries.
    pub entries: u64,
    /// Chunks that its files were cut into.
    pub chunks: u64,
    /// Those of them that were not there already.
    pub new_chunks: u64,
    /// Stored size in bytes of the blob that it became; 0 for none.
    pub blob_bytes: u64,
    /// Whether it came from a build cache: it was neither read nor packed.
    pub cached: bool,
}

/// Is told what happens. Calls come from several threads, often, and must return at once.
pub trait Progress: Send + Sync {
    /// An image with so many layers begins; the layers that follow are its own.
    fn image_started(&self, _platform: &Platform, _layers: usize) {}

    /// A layer of `stored_bytes` (if known) begins. Layers are counted from 0, the lowest.
    fn layer_started(&self, _layer: usize, _stored_bytes: Option<u64>) {}

    /// So many more bytes of a layer were read.
    fn layer_read(&self, _layer: usize, _bytes: u64) {}

    /// A layer is packed.
    fn layer_packed(&self, _layer: usize, _report: &LayerReport) {}

    /// A layer was found in a build cache: it is neither read nor packed.
    fn layer_cached(&self, _layer: usize, _report: &LayerReport) {}

    /// A layer can't be written in the format that was asked for, for a reason that lies in the format: it
    /// becomes a plain one.
    fn layer_stays_plain(&self, _layer: usize, _why: &str) {}

    /// A build cache could not be used as it should be: the work is done without it.
    fn cache_failed(&self, _cache: &str, _why: &str) {}

    /// A blob of so many bytes is being pushed.
    fn push_started(&self, _digest: &Digest, _bytes: u64) {}

    /// The blob is there; `bytes` were sent: 0 when it was there before.
    fn push_done(&self, _digest: &Digest, _bytes: u64) {}
}

/// Nobody wants to know.
impl Progress for () {}
