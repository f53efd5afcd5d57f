//! Reading a layout.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use draught_digest::Digest;
use draught_oci::{Document, Index, Limits};

use crate::error::SourceError;
use crate::listing::{self, INDEX_FILE, Listing, MARKER_FILE};
use crate::local::LocalBlob;

/// Bytes of the marker file.
const MARKER_BYTES_MAX: u64 = 4096;

/// A directory that is an OCI layout. Its functions block; [`crate::Repository`] calls them where that is fine.
#[derive(Debug, Clone)]
pub struct Layout {
    pub(super) dir: PathBuf,
}

impl Layout {
    /// Opens a layout that is there.
    ///
    /// # Errors
    /// When the directory is none.
    pub fn open(dir: &Path) -> Result<Self, SourceError> {
        let layout = Self {
            dir: dir.to_owned(),
        };
        let wrong = |reason: String| SourceError::Format {
            path: dir.to_owned(),
            expected: "an OCI layout",
            reason,
        };
        let marker = match read_file(&dir.join(MARKER_FILE), MARKER_BYTES_MAX) {
            Err(SourceError::Io { source })
                if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory]
                    .contains(&source.kind()) =>
            {
                return Err(wrong(format!("it has no file {MARKER_FILE}")));
            }
            other => other?,
        };
        listing::check_marker(&marker).map_err(wrong)?;
        Ok(layout)
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a blob is.
    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        let algorithm = self.dir.join("blobs").join(digest.algorithm().name());
        algorithm.join(digest.hex())
    }
}

impl Listing for Layout {
    fn label(&self) -> String {
        format!("oci:{}", self.dir.display())
    }

    fn index(&self) -> Result<Document<Index>, SourceError> {
        let limits = Limits::default();
        let limit_bytes = u64::try_from(limits.document_bytes_max).unwrap_or(u64::MAX);
        let bytes = read_file(&self.dir.join(INDEX_FILE), limit_bytes)?;
        listing::parse_index(&self.label(), bytes)
    }

    fn blob(&self, digest: &Digest) -> Result<LocalBlob, SourceError> {
        let file = match fs_err::File::open(self.blob_path(digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.no_such_blob(digest));
            }
            Err(error) => return Err(error.into()),
        };
        let bytes = file.metadata()?.len();
        Ok(LocalBlob::of_file(Arc::new(file.into_file()), 0, bytes))
    }
}

/// A whole small file.
pub(super) fn read_file(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, SourceError> {
    use std::io::Read as _;

    let mut bytes = Vec::new();
    let file = fs_err::File::open(path)?;
    let read = file
        .take(limit_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if u64::try_from(read).is_ok_and(|read| read <= limit_bytes) {
        return Ok(bytes);
    }
    Err(SourceError::TooLong {
        what: path.display().to_string(),
        limit_bytes,
    })
}
