//! What layers became.

use std::sync::Arc;

use draught_digest::Digest;
use draught_oci::Descriptor;

use crate::cache::Kept;
use crate::progress::LayerReport;

/// A layer as an image's manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedLayer {
    /// Media type, digest, size, and the annotations by which readers know it.
    pub descriptor: Descriptor,
    /// What the image's configuration says of it.
    pub diff_id: Digest,
    /// Which of the packed layers it was, counted from 0, the lowest; `None` for what belongs to all of
    /// them, and for blobs of dictionaries.
    pub of: Option<usize>,
}

/// The layers of an image, packed. All blobs are where they belong once
/// [`Packer::flush`](crate::Packer::flush) has returned.
#[derive(Debug, Default)]
pub struct Packed {
    /// What the image's manifest lists, in this order; the image's configuration lists the diff IDs.
    pub layers: Vec<ListedLayer>,
    /// Blobs that the image needs and its manifest does not list, because they are in a blob backend.
    pub unlisted: Vec<Descriptor>,
    /// What was packed, lowest first.
    pub reports: Vec<LayerReport>,
    /// Size in bytes of the layer with the bootstrap; 0 where there is none.
    pub bootstrap_layer_bytes: u64,
    /// Extended attributes that no image of this format can hold, and that were left out.
    pub xattrs_left_out: u64,
    /// What goes into caches.
    pub(crate) kept: Vec<Arc<Kept>>,
}

impl Packed {
    /// For each layer that was packed, whether it became one that the image has.
    #[must_use]
    pub fn became(&self) -> Vec<bool> {
        let is_listed = |at| self.layers.iter().any(|layer| layer.of == Some(at));
        (0..self.reports.len()).map(is_listed).collect()
    }
}
