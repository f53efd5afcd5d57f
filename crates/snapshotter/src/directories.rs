//! The directories of snapshots.

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Where everything of the snapshotter lies.
#[derive(Debug, Clone)]
pub(crate) struct Directories {
    root: PathBuf,
}

impl Directories {
    /// Makes what is missing below a directory.
    pub(crate) fn new(root: PathBuf) -> Result<Self> {
        let made = Self { root };
        for dir in [made.snapshots(), made.images(), made.trash()] {
            fs_err::create_dir_all(dir).map_err(Error::io("make the snapshots' directory"))?;
        }
        // Containers' files may be anybody's; what lies around them is nobody's business.
        let mode = std::fs::Permissions::from_mode(0o711);
        fs_err::set_permissions(&made.root, mode)
            .map_err(Error::io("restrict the snapshots' directory"))?;
        Ok(made)
    }

    /// The database.
    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("snapshots.redb")
    }

    fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// Where images are mounted.
    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    fn snapshot(&self, id: u64) -> PathBuf {
        self.snapshots().join(id.to_string())
    }

    /// A snapshot's files.
    pub(crate) fn files(&self, id: u64) -> PathBuf {
        self.snapshot(id).join("fs")
    }

    /// What overlayfs works in.
    pub(crate) fn work(&self, id: u64) -> PathBuf {
        self.snapshot(id).join("work")
    }

    /// Makes a new snapshot's directories. Its root gets mode and owner of `below`, the root of what lies below it.
    pub(crate) fn make(&self, id: u64, with_work: bool, below: Option<&Path>) -> io::Result<()> {
        let dir = self.snapshot(id);
        if let Err(error) = fs_err::create_dir(&dir) {
            if error.kind() == io::ErrorKind::NotFound {
                // Somebody removed what was there when we started.
                fs_err::create_dir_all(self.snapshots())?;
            } else if error.kind() == io::ErrorKind::AlreadyExists {
                // A process that had the same number died before it wrote that down: nobody's.
                fs_err::remove_dir_all(&dir)?;
            } else {
                return Err(error);
            }
            fs_err::create_dir(&dir)?;
        }
        fs_err::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))?;
        let files = self.files(id);
        fs_err::create_dir(&files)?;
        let mut mode = 0o755;
        if let Some(below) = below {
            let meta = fs_err::metadata(below)?;
            std::os::unix::fs::chown(&files, Some(meta.uid()), Some(meta.gid()))?;
            mode = meta.mode() & 0o7777;
        }
        fs_err::set_permissions(&files, std::fs::Permissions::from_mode(mode))?;
        if with_work {
            let work = self.work(id);
            fs_err::create_dir(&work)?;
            fs_err::set_permissions(&work, std::fs::Permissions::from_mode(0o711))?;
        }
        Ok(())
    }

    /// Takes a snapshot's directory out of the way, to be deleted by [`Directories::empty_trash`].
    pub(crate) fn discard(&self, id: u64) -> io::Result<()> {
        fs_err::create_dir_all(self.trash())?;
        match fs_err::rename(self.snapshot(id), self.trash().join(id.to_string())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Deletes what was discarded. What can't be deleted is tried again next time.
    pub(crate) fn empty_trash(&self) -> io::Result<()> {
        let mut failed = None;
        let entries = match fs_err::read_dir(self.trash()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            match fs_err::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => failed = Some(error),
                _ => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// The identities of all directories of snapshots.
    pub(crate) fn list(&self) -> io::Result<Vec<u64>> {
        let mut ids = Vec::new();
        for entry in fs_err::read_dir(self.snapshots())? {
            let name = entry?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        Ok(ids)
    }

    /// Bytes on disk and inodes of a snapshot's files, each inode once.
    pub(crate) fn usage(&self, id: u64) -> io::Result<(u64, u64)> {
        let mut seen = std::collections::HashSet::new();
        let (mut bytes, mut inodes) = (0_u64, 0_u64);
        let mut dirs = vec![self.files(id)];
        let mut count = |meta: &std::fs::Metadata| {
            if seen.insert((meta.dev(), meta.ino())) {
                bytes = bytes.saturating_add(meta.blocks().saturating_mul(512));
                inodes += 1;
            }
        };
        while let Some(dir) = dirs.pop() {
            count(&fs_err::symlink_metadata(&dir)?);
            let entries = match fs_err::read_dir(&dir) {
                // It is written into while we look.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let path = entry?.path();
                match fs_err::symlink_metadata(&path) {
                    Ok(meta) if meta.is_dir() => dirs.push(path),
                    Ok(meta) => count(&meta),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok((bytes, inodes))
    }
}
