//! Reading a layout.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use draught_digest::Digest;
use draught_oci::{Any, Descriptor, Document, Index, Limits, Selector, annotation, media_type};
use serde::Deserialize;

use crate::error::SourceError;
use crate::local::LocalBlob;

/// What marks a directory as a layout.
pub(super) const MARKER_FILE: &str = "oci-layout";
/// What lists its images.
pub(super) const INDEX_FILE: &str = "index.json";
/// The only version there is.
pub(super) const VERSION: &str = "1.0.0";
/// Bytes of the marker file.
const MARKER_BYTES_MAX: u64 = 4096;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMarker {
    image_layout_version: String,
}

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
        let marker: WireMarker = serde_json::from_slice(&marker)
            .map_err(|error| wrong(format!("its file {MARKER_FILE} is malformed: {error}")))?;
        if marker.image_layout_version != VERSION {
            let version = marker.image_layout_version;
            return Err(wrong(format!(
                "its version is {version:?}, only {VERSION} is known"
            )));
        }
        Ok(layout)
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn label(&self) -> String {
        format!("oci:{}", self.dir.display())
    }

    /// Where a blob is.
    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        let algorithm = self.dir.join("blobs").join(digest.algorithm().name());
        algorithm.join(digest.hex())
    }

    /// What lists its images.
    pub(super) fn index(&self) -> Result<Document<Index>, SourceError> {
        let limits = Limits::default();
        let limit_bytes = u64::try_from(limits.document_bytes_max).unwrap_or(u64::MAX);
        let bytes = read_file(&self.dir.join(INDEX_FILE), limit_bytes)?;
        Document::parse(bytes, &limits).map_err(|source| SourceError::Document {
            what: format!("{}, {INDEX_FILE}", self.label()),
            source: Box::new(source),
        })
    }

    /// The image that is meant when none was named: the only one.
    pub(crate) fn only(&self) -> Result<Selector, SourceError> {
        let index = self.index()?;
        let images: Vec<&Descriptor> = index
            .images()
            .filter(|image| image.artifact_type.is_none())
            .collect();
        match images.as_slice() {
            [image] => Ok(Selector::Digest(image.digest)),
            _ => Err(self.no_such_image("(name one)")),
        }
    }

    fn no_such_image(&self, selector: &str) -> SourceError {
        let tags = self.tags().unwrap_or_default();
        SourceError::NoSuchImage {
            what: self.label(),
            selector: selector.to_owned(),
            available: tags.join(", "),
        }
    }

    /// A manifest or index, verified.
    pub(crate) fn manifest(&self, selector: &Selector) -> Result<Any, SourceError> {
        let index = self.index()?;
        let listed = match selector {
            Selector::Digest(digest) => {
                index.manifests.iter().find(|image| image.digest == *digest)
            }
            Selector::Tag(tag) => Some(
                index
                    .manifests
                    .iter()
                    .find(|image| image.annotation(annotation::REF_NAME) == Some(tag))
                    .ok_or_else(|| self.no_such_image(tag))?,
            ),
        };
        let digest = match (listed, selector) {
            (Some(listed), _) => listed.digest,
            (None, Selector::Digest(digest)) => *digest,
            (None, Selector::Tag(tag)) => return Err(self.no_such_image(tag)),
        };
        let limits = Limits::default();
        let limit_bytes = u64::try_from(limits.document_bytes_max).unwrap_or(u64::MAX);
        let bytes = match read_file(&self.blob_path(&digest), limit_bytes) {
            Err(SourceError::Io { source }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(self.no_such_blob(digest));
            }
            other => other?,
        };
        if !digest.verifies(&bytes) {
            return Err(SourceError::Mismatch {
                digest,
                got: Digest::sha256(&bytes),
                bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            });
        }
        let media_type = listed
            .map(|listed| listed.media_type.as_str())
            .filter(|told| media_type::is_manifest(told) || media_type::is_index(told));
        Any::parse(bytes, media_type.unwrap_or_default(), &limits).map_err(|source| {
            SourceError::Document {
                what: format!("{}, manifest {selector}", self.label()),
                source: Box::new(source),
            }
        })
    }

    fn no_such_blob(&self, digest: Digest) -> SourceError {
        SourceError::NoSuchBlob {
            what: self.label(),
            digest,
        }
    }

    /// A blob's file.
    pub(crate) fn blob(&self, digest: &Digest) -> Result<LocalBlob, SourceError> {
        let file = match fs_err::File::open(self.blob_path(digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.no_such_blob(*digest));
            }
            Err(error) => return Err(error.into()),
        };
        let bytes = file.metadata()?.len();
        Ok(LocalBlob {
            file: Arc::new(file.into_file()),
            offset: 0,
            bytes,
        })
    }

    pub(crate) fn has_blob(&self, digest: &Digest) -> Result<bool, SourceError> {
        match fs_err::metadata(self.blob_path(digest)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn tags(&self) -> Result<Vec<String>, SourceError> {
        let index = self.index()?;
        let mut tags: Vec<String> = index
            .manifests
            .iter()
            .filter_map(|image| image.annotation(annotation::REF_NAME))
            .map(str::to_owned)
            .collect();
        tags.sort();
        tags.dedup();
        Ok(tags)
    }

    /// What is listed and refers to a manifest.
    pub(crate) fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, SourceError> {
        let index = self.index()?;
        let mut found = Vec::new();
        for image in &index.manifests {
            let is_document = media_type::is_manifest(&image.media_type)
                || media_type::is_index(&image.media_type);
            if is_document {
                let document = self.manifest(&Selector::Digest(image.digest))?;
                if document
                    .subject()
                    .is_some_and(|found| found.digest == *subject)
                {
                    found.push(image.clone());
                }
            }
        }
        Ok(found)
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
