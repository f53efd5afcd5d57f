//! Opening the directory, and the place of everything in it.

use std::fs::TryLockError;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use draught_digest::Digest;
use tracing::warn;

use super::durable;
use crate::names::{RepositoryName, Tag, is_component};

/// What the file `format` says.
const FORMAT: &str = "draught registry 1\n";

/// Why a directory can't be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another registry of this one, holds the lock.
    #[error("{} is served by another process; stop it or choose another directory", root.display())]
    Busy {
        /// The directory.
        root: PathBuf,
    },
    /// The directory has a layout of another version, or is not a registry at all.
    #[error("{} is not a registry of this version; choose an empty directory", root.display())]
    Foreign {
        /// The directory.
        root: PathBuf,
    },
    /// The directory can't be read or written.
    #[error("{} can't be used", root.display())]
    Io {
        /// The directory.
        root: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The directory, locked.
#[derive(Debug)]
pub(crate) struct Storage {
    root: PathBuf,
    /// Held around every step that adds or removes a link to a blob, or reads a tag to change it:
    /// whether a blob is still wanted is told by its number of links.
    pub(super) links: Mutex<()>,
    /// Locked for as long as it is open.
    _lock: fs_err::File,
}

impl Storage {
    /// Opens `root`, and clears away what a crash left behind.
    pub(crate) fn open(root: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io {
            root: root.to_owned(),
            source,
        };
        durable::create_dir_all(root).map_err(io)?;
        check_format(root)
            .map_err(io)?
            .then_some(())
            .ok_or_else(|| OpenError::Foreign {
                root: root.to_owned(),
            })?;
        let lock = fs_err::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(root.join("lock"))
            .map_err(io)?;
        match lock.file().try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::Busy {
                    root: root.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let storage = Self {
            root: root.to_owned(),
            links: Mutex::new(()),
            _lock: lock,
        };
        storage.prepare().map_err(io)?;
        Ok(storage)
    }

    fn prepare(&self) -> io::Result<()> {
        durable::write(&self.root, &self.root.join("format"), &[FORMAT.as_bytes()])?;
        for dir in [
            self.uploads_dir(),
            self.root.join("repositories"),
            self.blobs_dir(),
        ] {
            durable::create_dir_all(&dir)?;
        }
        for upload in durable::names(&self.uploads_dir())? {
            fs_err::remove_file(self.uploads_dir().join(upload))?;
        }
        // A blob that a crash caught between its arrival and its repository.
        for dir in durable::subdirs(&self.blobs_dir(), |_| true)? {
            for name in durable::names(&dir)? {
                let blob = dir.join(name);
                if fs_err::metadata(&blob)?.nlink() == 1 {
                    warn!(blob = %blob.display(), "removing a blob that no repository has");
                    fs_err::remove_file(&blob)?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn uploads_dir(&self) -> PathBuf {
        self.root.join("uploads")
    }

    fn blobs_dir(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// Where the one copy of a blob is.
    pub(super) fn blob_file(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        // 256 directories keep each of them short.
        let shard = hex.get(..2).unwrap_or_default();
        self.blobs_dir().join(shard).join(&hex)
    }

    fn repository_dir(&self, name: &RepositoryName) -> PathBuf {
        self.root.join("repositories").join(name.as_str())
    }

    pub(super) fn blob_links_dir(&self, name: &RepositoryName) -> PathBuf {
        self.repository_dir(name).join("_blobs")
    }

    pub(super) fn manifests_dir(&self, name: &RepositoryName) -> PathBuf {
        self.repository_dir(name).join("_manifests")
    }

    pub(super) fn referrers_dir(&self, name: &RepositoryName, subject: &Digest) -> PathBuf {
        self.repository_dir(name)
            .join("_referrers")
            .join(subject.hex())
    }

    pub(super) fn tags_dir(&self, name: &RepositoryName) -> PathBuf {
        self.repository_dir(name).join("_tags")
    }

    pub(super) fn tag_file(&self, name: &RepositoryName, tag: &Tag) -> PathBuf {
        self.tags_dir(name).join(tag.as_str())
    }

    /// Whether anything was ever pushed to the repository.
    pub(crate) fn knows(&self, name: &RepositoryName) -> bool {
        let dir = self.repository_dir(name);
        ["_manifests", "_blobs", "_tags"]
            .iter()
            .any(|part| dir.join(part).is_dir())
    }

    /// The names of all repositories that hold manifests, sorted.
    pub(crate) fn repositories(&self) -> io::Result<Vec<String>> {
        let top = self.root.join("repositories");
        let mut found = Vec::new();
        // Depth is bounded: names are, and every component takes two bytes of one.
        let mut to_visit = durable::subdirs(&top, is_component)?;
        while let Some(dir) = to_visit.pop() {
            if dir.join("_manifests").is_dir()
                && let Some(name) = dir.strip_prefix(&top).ok().and_then(Path::to_str)
            {
                found.push(name.to_owned());
            }
            to_visit.extend(durable::subdirs(&dir, is_component)?);
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// Whether `root` is empty or of our format.
fn check_format(root: &Path) -> io::Result<bool> {
    match durable::found(fs_err::read_to_string(root.join("format")))? {
        Some(format) => Ok(format == FORMAT),
        // A first opening that was cut off leaves at most its lock and a staged file.
        None => Ok(durable::names(root)?
            .iter()
            .all(|name| name == "lock" || name.starts_with(".tmp"))),
    }
}
