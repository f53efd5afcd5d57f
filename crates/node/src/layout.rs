//! Where things lie below the state directory.

use std::path::{Path, PathBuf};

/// The state directory and the names in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Everything below `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The state directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The socket that commands talk to.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.root.join("draught.sock")
    }

    /// The file that the keeper holds a lock on, with its process number in it.
    #[must_use]
    pub fn keeper_lock(&self) -> PathBuf {
        self.root.join("keeper.lock")
    }

    /// Which descriptor in the service manager's store is of which device.
    #[must_use]
    pub fn descriptors(&self) -> PathBuf {
        self.root.join("descriptors")
    }

    /// The log of a daemon that a command started by itself.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.root.join("daemon.log")
    }

    /// The list of live mounts.
    #[must_use]
    pub fn mounts(&self) -> PathBuf {
        self.root.join("mounts.json")
    }

    /// What starts of images touch.
    #[must_use]
    pub fn profiles(&self) -> PathBuf {
        self.root.join("profiles")
    }

    /// The chunk store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }
}
