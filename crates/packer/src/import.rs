//! Reading the metadata of an image that is lazily readable.

use draught_importer::{Import, ImportError, Limits, Opened, Step};
use draught_oci::Manifest;
use draught_source::{Blobs, Source as _, SourceError};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

/// Pieces of metadata that are fetched at once.
const READS_AT_ONCE: usize = 8;

/// Why the metadata of an image can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It makes no sense.
    #[error("failed to read the image's metadata")]
    Import(#[source] Box<ImportError>),
    /// It can't be fetched.
    #[error("failed to fetch {what}")]
    Fetch {
        /// Which bytes of which blob.
        what: String,
        /// Why.
        source: SourceError,
    },
}

/// Reads the metadata of a lazily readable image into a tree.
///
/// # Errors
/// See [`OpenError`].
pub async fn open_image(blobs: &Blobs, manifest: &Manifest) -> Result<Opened, OpenError> {
    let wrong = |error| OpenError::Import(Box::new(error));
    let mut import = Import::new(manifest, &Limits::default()).map_err(wrong)?;
    if blobs.has_backend() {
        import = import.with_blobs_elsewhere();
    }
    loop {
        let reads = match import.step().map_err(wrong)? {
            Step::Done(opened) => return Ok(*opened),
            Step::Sizes(missing) => {
                for blob in missing {
                    let bytes = blobs.bytes_elsewhere(&blob).await;
                    let bytes = bytes.map_err(|source| OpenError::Fetch {
                        what: format!("the size of {blob}"),
                        source,
                    })?;
                    import.give_size(&blob, bytes);
                }
                continue;
            }
            Step::Read(reads) => reads,
        };
        let fetched: Vec<_> = stream::iter(reads)
            .map(|read| async move {
                let bytes = blobs.read_range(&read.blob, read.range.clone()).await;
                let bytes = bytes.map_err(|source| OpenError::Fetch {
                    what: format!("bytes {:?} of {}", read.range, read.blob),
                    source,
                })?;
                Ok::<_, OpenError>((read, bytes))
            })
            .boxed()
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        for (read, bytes) in fetched {
            import.give(&read, bytes.into()).map_err(wrong)?;
        }
    }
}
