//! The store's directory: its lock, its version, and what it holds.

use std::fs::File;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt as _;
use rustix::fs::FlockOperation;

use crate::error::OpenError;

/// What the file `version` says of the layout that this program knows.
const VERSION: &str = "draught store 1\n";

/// How names begin that are not what they will be, or no longer what they were. Such files are removed
/// when the store is opened.
pub(crate) const UNFINISHED: &str = ".unfinished-";

/// The directories of an open store. Dropping it releases the lock.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) devices: PathBuf,
    pub(crate) images: PathBuf,
    _lock: File,
}

impl Layout {
    pub(crate) fn open(root: &Path) -> Result<Self, OpenError> {
        let io = |action| {
            move |source| OpenError::Io {
                root: root.to_owned(),
                action,
                source,
            }
        };
        create_dir(root).map_err(io("create the directory"))?;
        let lock = lock(root)?;
        let layout = Self {
            devices: root.join("devices"),
            images: root.join("images"),
            _lock: lock,
        };
        layout.check_version(root)?;
        create_dir(&layout.devices).map_err(io("create the directory of devices"))?;
        create_dir(&layout.images).map_err(io("create the directory of images"))?;
        sync_dir(root).map_err(io("make durable the directories"))?;
        for dir in [root, &layout.images, &layout.devices] {
            sweep(dir).map_err(io("remove unfinished files"))?;
        }
        Ok(layout)
    }

    /// Makes the directories again if somebody removed them while the store was open; says whether that was so.
    pub(crate) fn make_again(&self, root: &Path) -> io::Result<bool> {
        let version = root.join("version");
        if version.exists() && self.devices.is_dir() && self.images.is_dir() {
            return Ok(false);
        }
        create_dir(root)?;
        create_dir(&self.devices)?;
        create_dir(&self.images)?;
        replace(&version, VERSION.as_bytes())?;
        sync_dir(root)?;
        Ok(true)
    }

    fn check_version(&self, root: &Path) -> Result<(), OpenError> {
        if is_known(root)? {
            return Ok(());
        }
        // The version is written before anything else, and durably.
        for name in ["devices", "images"] {
            if root.join(name).exists() {
                return Err(OpenError::NotAStore {
                    root: root.to_owned(),
                    name: name.to_owned(),
                });
            }
        }
        let version = root.join("version");
        replace(&version, VERSION.as_bytes()).map_err(|source| OpenError::Io {
            root: root.to_owned(),
            action: "write the version",
            source,
        })
    }
}

/// Whether there is a store of the layout that this program knows, or none at all.
pub(crate) fn is_known(root: &Path) -> Result<bool, OpenError> {
    match fs_err::read(root.join("version")) {
        Ok(found) if found == VERSION.as_bytes() => Ok(true),
        Ok(found) => Err(OpenError::Version {
            root: root.to_owned(),
            // Enough to recognize another version, too little to fill a log with another file.
            found: String::from_utf8_lossy(&found).chars().take(40).collect(),
            known: VERSION,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(OpenError::Io {
            root: root.to_owned(),
            action: "read the version",
            source,
        }),
    }
}

fn lock(root: &Path) -> Result<File, OpenError> {
    let io = |source| OpenError::Io {
        root: root.to_owned(),
        action: "lock the directory",
        source,
    };
    let (file, _) = fs_err::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(root.join("lock"))
        .map_err(io)?
        .into_parts();
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked {
            root: root.to_owned(),
        }),
        Err(error) => Err(io(error.into())),
    }
}

/// Creates `dir` with its parents, for us alone, unless it is there.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        fs_err::create_dir_all(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        other => other,
    }
}

/// Makes durable what was created, renamed or removed in `dir`.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    fs_err::File::open(dir)?.sync_all()
}

/// Makes `bytes` the content of the file `path`: after a crash it has its old content or its new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_after(path, bytes, fs_err::File::sync_all)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes `bytes` the content of the file `path` for whoever reads it from now on, and nothing durable.
pub(crate) fn replace_soon(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_after(path, bytes, |_| Ok(()))
}

fn replace_after(
    path: &Path,
    bytes: &[u8],
    sync: impl FnOnce(&fs_err::File) -> io::Result<()>,
) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut unfinished = std::ffi::OsString::from(UNFINISHED);
    unfinished.push(name);
    let unfinished = dir.join(unfinished);
    let written = fs_err::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            sync(&file)
        })
        .and_then(|()| fs_err::rename(&unfinished, path));
    if written.is_err() {
        // A full disk is no place to leave halves behind; what can't be removed now is later.
        drop(fs_err::remove_file(&unfinished));
    }
    written
}

/// Removes what earlier processes left unfinished in `dir`.
fn sweep(dir: &Path) -> io::Result<()> {
    for entry in fs_err::read_dir(dir)? {
        let entry = entry?;
        if !entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(UNFINISHED.as_bytes())
        {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs_err::remove_dir_all(entry.path())?;
        } else {
            fs_err::remove_file(entry.path())?;
        }
    }
    Ok(())
}
