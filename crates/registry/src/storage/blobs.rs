//! Blobs: one copy each, and a hard link per repository that has it.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};

use draught_digest::Digest;
use tempfile::NamedTempFile;

use super::Storage;
use super::durable;
use crate::names::RepositoryName;

impl Storage {
    pub(super) fn lock_links(&self) -> MutexGuard<'_, ()> {
        // The lock guards no data of ours, so a panic elsewhere leaves nothing half done in it.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a repository's blob.
    pub(crate) fn open_blob(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> io::Result<Option<fs_err::File>> {
        durable::found(fs_err::File::open(
            self.blob_links_dir(name).join(digest.hex()),
        ))
    }

    /// Whether a repository has a blob.
    pub(crate) fn has_blob(&self, name: &RepositoryName, digest: &Digest) -> io::Result<bool> {
        let link = self.blob_links_dir(name).join(digest.hex());
        Ok(durable::found(fs_err::metadata(link))?.is_some())
    }

    /// Gives a repository the blob in `staged`, whose bytes have this digest.
    pub(crate) fn add_blob(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        staged: NamedTempFile,
    ) -> io::Result<()> {
        // The slow part, before the lock.
        staged.as_file().sync_all()?;
        let blob = self.blob_file(digest);
        if let Some(dir) = blob.parent() {
            durable::create_dir_all(dir)?;
        }
        let _guard = self.lock_links();
        if durable::found(fs_err::metadata(&blob))?.is_none() {
            durable::rename(staged, &blob)?;
        }
        self.link_blob(name, digest, &blob)
    }

    /// Gives `name` a blob that `from`, or any repository, has; whether there was one.
    pub(crate) fn mount_blob(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        from: Option<&RepositoryName>,
    ) -> io::Result<bool> {
        let _guard = self.lock_links();
        let blob = match from {
            Some(from) => self.blob_links_dir(from).join(digest.hex()),
            None => self.blob_file(digest),
        };
        if durable::found(fs_err::metadata(&blob))?.is_none() {
            return Ok(false);
        }
        self.link_blob(name, digest, &blob)?;
        Ok(true)
    }

    fn link_blob(&self, name: &RepositoryName, digest: &Digest, blob: &Path) -> io::Result<()> {
        let dir = self.blob_links_dir(name);
        durable::create_dir_all(&dir)?;
        match fs_err::hard_link(blob, dir.join(digest.hex())) {
            Ok(()) => durable::sync_dir(&dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes a blob from a repository, and from the disk if no other has it; whether it was there.
    pub(crate) fn remove_blob(&self, name: &RepositoryName, digest: &Digest) -> io::Result<bool> {
        let _guard = self.lock_links();
        if !durable::remove(&self.blob_links_dir(name).join(digest.hex()))? {
            return Ok(false);
        }
        let blob = self.blob_file(digest);
        let links = durable::found(fs_err::metadata(&blob))?.map(|meta| meta.nlink());
        if links == Some(1) {
            durable::remove(&blob)?;
        }
        Ok(true)
    }
}
