//! The layer that holds a bootstrap: an archive, mostly compressed.

use draught_codec::{LayerDecoder, LayerError, LayerLimits};
use draught_tar::{Reader, TarError};
use draught_tree::EntryKind;

use crate::annotation::NYDUS_BOOTSTRAP_PATH;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 << 10;

/// Why a layer gives no metadata.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataLayerError {
    /// It can't be decompressed.
    #[error("the layer can't be decompressed")]
    Layer(#[source] LayerError),
    /// It is no archive.
    #[error("the layer is no archive that can be read")]
    Tar(#[source] TarError),
    /// There is no bootstrap in it.
    #[error("the layer has no file {NYDUS_BOOTSTRAP_PATH:?}")]
    NotFound,
    /// The bootstrap is too large.
    #[error("the bootstrap has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// What it may have.
        limit: u64,
    },
}

/// Takes the bootstrap out of the layer that holds it: a tar archive, plain or in gzip or zstd.
/// Memory is that of the bootstrap, which is `bytes_max` at most.
///
/// # Errors
/// See [`MetadataLayerError`].
pub fn metadata_from_layer(layer: &[u8], bytes_max: u64) -> Result<Vec<u8>, MetadataLayerError> {
    let limits = LayerLimits {
        // Headers, and other files of the archive, which are few and small.
        decoded_bytes_max: bytes_max.saturating_mul(2),
        ..LayerLimits::default()
    };
    let decoder = LayerDecoder::new(layer, limits).map_err(MetadataLayerError::Layer)?;
    let mut reader = Reader::new(decoder, draught_tar::Limits::default());
    while let Some(entry) = reader.next_entry().map_err(MetadataLayerError::Tar)? {
        let name = entry.path.strip_prefix(b"./").unwrap_or(&entry.path);
        let EntryKind::File { bytes, .. } = entry.kind else {
            continue;
        };
        if name != NYDUS_BOOTSTRAP_PATH.as_bytes() {
            continue;
        }
        if bytes > bytes_max {
            let limit = bytes_max;
            return Err(MetadataLayerError::TooLarge { bytes, limit });
        }
        let mut bootstrap = Vec::new();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = reader
                .read_data(&mut piece)
                .map_err(MetadataLayerError::Tar)?;
            if read == 0 {
                return Ok(bootstrap);
            }
            bootstrap.extend_from_slice(piece.get(..read).unwrap_or_default());
        }
    }
    Err(MetadataLayerError::NotFound)
}
