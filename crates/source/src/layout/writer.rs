//! Writing a layout: a blob or index is there whole or not at all.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use draught_digest::Digest;
use draught_oci::{Any, Descriptor, Document, Index, Selector, annotation};
use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;

use super::reader::Layout;
use crate::error::SourceError;
use crate::listing::{self, INDEX_FILE, Listing as _, MARKER_FILE};
use crate::payload::{Payload, Pushed, copy_verified};

/// Blobs and indexes are for everyone to read, as other tools write them.
const MODE: u32 = 0o644;

impl Layout {
    /// Opens a layout, and makes the directory one if it isn't there or is empty.
    ///
    /// # Errors
    /// When the directory is something else, or can't be written.
    pub fn create(dir: &Path) -> Result<Self, SourceError> {
        fs_err::create_dir_all(dir)?;
        // Who makes a layout at the same time waits for the other to be done. It ends with the descriptor.
        let lock = fs_err::File::open(dir)?;
        lock.file().lock()?;
        if fs_err::read_dir(dir)?.next().is_some() {
            return Self::open(dir);
        }
        let layout = Self {
            dir: dir.to_owned(),
        };
        layout.write_index(Index::new(Vec::new()))?;
        // Last: a directory with the marker is a whole layout.
        replace(&dir.join(MARKER_FILE), listing::MARKER)?;
        Ok(layout)
    }

    pub(crate) fn push_blob(
        &self,
        descriptor: &Descriptor,
        payload: &Payload,
    ) -> Result<Pushed, SourceError> {
        if self.has_blob(&descriptor.digest)? {
            return Ok(Pushed::Existed);
        }
        match payload {
            Payload::Spooled(file) => self.take_file(descriptor, file)?,
            Payload::File(_) | Payload::Bytes(_) => {
                self.write_blob(descriptor, &mut *payload.open()?)?;
            }
        }
        Ok(Pushed::Written)
    }

    /// Gives a file without a name the name of a blob, or copies it where that can't be.
    fn take_file(&self, descriptor: &Descriptor, path: &Path) -> Result<(), SourceError> {
        let mut file = fs_err::File::open(path)?;
        let got = file.metadata()?.len();
        if got != descriptor.size {
            return Err(SourceError::Size {
                digest: descriptor.digest,
                expected: descriptor.size,
                got,
            });
        }
        let to = self.blob_path(&descriptor.digest);
        let dir = to.parent().unwrap_or(Path::new("."));
        fs_err::create_dir_all(dir)?;
        // On disk before it has a name: a blob that is there is whole.
        file.set_permissions(Permissions::from_mode(MODE))?;
        file.sync_all()?;
        // One name each: two places with the same file would be damaged together.
        let linked = match file.metadata()?.nlink() {
            0 => rustix::fs::linkat(CWD, path, CWD, &to, AtFlags::SYMLINK_FOLLOW),
            _ => Err(Errno::MLINK),
        };
        match linked {
            Ok(()) => fs_err::File::open(dir)?.sync_all()?,
            // Somebody else made it.
            Err(Errno::EXIST) => {}
            // On another filesystem, or one that can't do that.
            Err(_) => replace_with(&to, |out| Ok(io::copy(&mut file, out).map(drop)?))?,
        }
        Ok(())
    }

    /// Writes a blob, verified on the way.
    fn write_blob(
        &self,
        descriptor: &Descriptor,
        from: &mut dyn io::Read,
    ) -> Result<(), SourceError> {
        replace_with(&self.blob_path(&descriptor.digest), |out| {
            copy_verified(descriptor, from, out)
        })
    }

    pub(crate) fn put_manifest(
        &self,
        tag: Option<&str>,
        document: &Any,
    ) -> Result<(), SourceError> {
        let descriptor = document.descriptor();
        if !self.has_blob(&descriptor.digest)? {
            self.write_blob(&descriptor, &mut document.bytes())?;
        }
        // Without a tag it is a part of an index, which lists it; what has a subject nobody else lists.
        if tag.is_none() && document.subject().is_none() {
            return Ok(());
        }
        self.change_index(|index| listing::list(index, tag, document, None))
    }

    pub(crate) fn delete_manifest(&self, selector: &Selector) -> Result<(), SourceError> {
        let digest = self.manifest(selector)?.digest();
        self.change_index(|index| {
            index.manifests.retain(|image| match selector {
                Selector::Tag(tag) => image.annotation(annotation::REF_NAME) != Some(tag),
                Selector::Digest(digest) => image.digest != *digest,
            });
        })?;
        match selector {
            Selector::Tag(_) => Ok(()),
            Selector::Digest(_) => self.delete_blob(&digest),
        }
    }

    pub(crate) fn delete_blob(&self, digest: &Digest) -> Result<(), SourceError> {
        fs_err::remove_file(self.blob_path(digest))?;
        Ok(())
    }

    /// Changes the index, alone among all who do.
    fn change_index(&self, change: impl FnOnce(&mut Index)) -> Result<(), SourceError> {
        let dir = fs_err::File::open(&self.dir)?;
        // Of the directory itself: a file of ours has no place in a layout. It ends with the descriptor.
        dir.file().lock()?;
        let mut index = self.index()?.content().clone();
        change(&mut index);
        self.write_index(index)
    }

    fn write_index(&self, index: Index) -> Result<(), SourceError> {
        replace(&self.dir.join(INDEX_FILE), Document::write(index).bytes())
    }
}

/// Replaces a file by these bytes.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), SourceError> {
    replace_with(path, |out| Ok(out.write_all(bytes)?))
}

/// Replaces a file by what is written, once it is all written and on disk.
pub(crate) fn replace_with(
    path: &Path,
    write: impl FnOnce(&mut std::fs::File) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs_err::create_dir_all(dir)?;
    let mut file = tempfile::Builder::new()
        .prefix(".draught-")
        .permissions(Permissions::from_mode(MODE))
        .tempfile_in(dir)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    fs_err::File::open(dir)?.sync_all()?;
    Ok(())
}
