//! An archive, read or written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use draught_digest::Digest;
use draught_oci::{Any, Descriptor, Document, Index, Reference};

use super::reader::Files;
use super::writer::Writer;
use super::{listed, saved};
use crate::error::SourceError;
use crate::listing::{INDEX_FILE, Listing};
use crate::local::LocalBlob;
use crate::payload::{Payload, Pushed};

/// A docker archive: one image of one that is read, or one that is being written. Its functions block;
/// [`crate::Repository`] calls them where that is fine. Clones are the same archive.
#[derive(Debug, Clone)]
pub struct Archive(Arc<Kind>);

#[derive(Debug)]
enum Kind {
    Read(Image),
    Written(Writer),
}

/// One image of an archive: a manifest, or an index with all that it lists.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) path: PathBuf,
    /// Lists this image only.
    pub(super) index: Document<Index>,
    pub(super) blobs: BTreeMap<Digest, LocalBlob>,
}

impl Archive {
    /// Opens an archive to read. `reference` names one of its images and may be left out when it has one. One
    /// that is compressed as a whole is decompressed to a file without a name in `scratch_dir`.
    ///
    /// # Errors
    /// When the file is none, or has no such image.
    pub fn open(
        path: &Path,
        reference: Option<&Reference>,
        scratch_dir: &Path,
    ) -> Result<Self, SourceError> {
        let opening = Opening {
            path,
            files: Files::open(path, scratch_dir)?,
        };
        let image = if opening.files.find(INDEX_FILE).is_some() {
            listed::image(&opening, reference)?
        } else {
            saved::image(&opening, reference)?
        };
        Ok(Self(Arc::new(Kind::Read(image))))
    }

    /// Begins a new archive, which replaces what is at `path` when something in it gets a tag. Images in it
    /// have the name of `reference`, with the tag that is written; without one they have tags only.
    ///
    /// # Errors
    /// When there is something that is no file, or nothing can be written beside it.
    pub fn create(path: &Path, reference: Option<Reference>) -> Result<Self, SourceError> {
        let writer = Writer::create(path, reference)?;
        Ok(Self(Arc::new(Kind::Written(writer))))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match &*self.0 {
            Kind::Read(image) => &image.path,
            Kind::Written(writer) => writer.path(),
        }
    }

    fn writer(&self) -> Result<&Writer, SourceError> {
        match &*self.0 {
            Kind::Written(writer) => Ok(writer),
            Kind::Read(_) => Err(SourceError::Unsupported {
                what: "writing",
                kind: "a docker archive that was opened to be read",
            }),
        }
    }

    pub(crate) fn push_blob(
        &self,
        descriptor: &Descriptor,
        payload: &Payload,
    ) -> Result<Pushed, SourceError> {
        self.writer()?.push_blob(descriptor, payload)
    }

    pub(crate) fn put_manifest(
        &self,
        tag: Option<&str>,
        document: &Any,
    ) -> Result<(), SourceError> {
        self.writer()?.put_manifest(tag, document)
    }
}

/// The name of an archive for people.
pub(super) fn label(path: &Path) -> String {
    format!("docker-archive:{}", path.display())
}

impl Listing for Archive {
    fn label(&self) -> String {
        label(self.path())
    }

    fn index(&self) -> Result<Document<Index>, SourceError> {
        match &*self.0 {
            Kind::Read(image) => Ok(image.index.clone()),
            Kind::Written(writer) => Ok(Document::write(writer.index())),
        }
    }

    fn blob(&self, digest: &Digest) -> Result<LocalBlob, SourceError> {
        let found = match &*self.0 {
            Kind::Read(image) => image.blobs.get(digest).cloned(),
            Kind::Written(writer) => writer.blob(digest),
        };
        found.ok_or_else(|| self.no_such_blob(digest))
    }
}

/// An archive on its way to an image.
pub(super) struct Opening<'a> {
    pub(super) path: &'a Path,
    pub(super) files: Files,
}

impl Opening<'_> {
    pub(super) fn wrong(&self, reason: String) -> SourceError {
        SourceError::Format {
            path: self.path.to_owned(),
            expected: "a docker archive",
            reason,
        }
    }

    /// There is no such image, or more than one.
    pub(super) fn no_such(
        &self,
        reference: Option<&Reference>,
        available: &[String],
    ) -> SourceError {
        SourceError::NoSuchImage {
            what: label(self.path),
            selector: reference.map_or_else(|| "(name one)".to_owned(), ToString::to_string),
            available: available.join(", "),
        }
    }

    pub(super) fn find(&self, name: &str) -> Result<LocalBlob, SourceError> {
        let found = self.files.find(name);
        found.ok_or_else(|| self.wrong(format!("it has no file {name:?}")))
    }

    /// A small file.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, SourceError> {
        let digest = Digest::sha256(name.as_bytes());
        self.find(name)?.document(&digest, || name.to_owned())
    }
}
