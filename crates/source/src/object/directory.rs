//! Blobs as files of a directory. Everything here blocks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use draught_digest::Digest;
use draught_oci::Descriptor;

use super::error::ObjectError;
use crate::error::SourceError;
use crate::layout::replace_with;
use crate::local::LocalBlob;
use crate::payload::{Payload, copy_verified};

/// A directory with one file for each blob.
#[derive(Debug, Clone)]
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    fn label(&self) -> String {
        format!("dir:{}", self.0.display())
    }

    fn path(&self, digest: &Digest) -> Result<PathBuf, SourceError> {
        let name = object_name(digest, || self.label())?;
        Ok(self.0.join(name))
    }

    /// An open blob.
    pub(super) fn blob(&self, digest: &Digest) -> Result<LocalBlob, SourceError> {
        let file = match fs_err::File::open(self.path(digest)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SourceError::NoSuchBlob {
                    what: self.label(),
                    digest: *digest,
                });
            }
            other => other?,
        };
        let bytes = file.metadata()?.len();
        Ok(LocalBlob::of_file(Arc::new(file.into_file()), 0, bytes))
    }

    /// Writes a blob, verified on the way: its name is there when all of it is, on disk.
    pub(super) fn put(
        &self,
        descriptor: &Descriptor,
        payload: &Payload,
    ) -> Result<(), SourceError> {
        let path = self.path(&descriptor.digest)?;
        replace_with(&path, |out| {
            copy_verified(descriptor, &mut *payload.open()?, out)
        })
    }
}

/// The name of a blob's object, after the prefix.
pub(super) fn object_name(
    digest: &Digest,
    label: impl FnOnce() -> String,
) -> Result<String, SourceError> {
    if digest.algorithm() != draught_digest::Algorithm::Sha256 {
        return Err(ObjectError::Algorithm.at(format!("naming {digest} in {}", label())));
    }
    Ok(digest.hex())
}
