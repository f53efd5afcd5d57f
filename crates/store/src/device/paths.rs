//! The names of a device's files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::key::DeviceKey;
use crate::layout::UNFINISHED;

/// The directory of devices.
#[derive(Debug)]
pub(crate) struct Paths {
    dir: PathBuf,
    unfinished: AtomicU64,
}

impl Paths {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            unfinished: AtomicU64::new(0),
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the kernel reads.
    pub(crate) fn data(&self, key: &DeviceKey) -> PathBuf {
        self.named(key, "data")
    }

    /// Which blocks are present.
    pub(crate) fn map(&self, key: &DeviceKey) -> PathBuf {
        self.named(key, "map")
    }

    /// Which chunks belong where.
    pub(crate) fn chunks(&self, key: &DeviceKey) -> PathBuf {
        self.named(key, "chunks")
    }

    /// Second digests of them.
    pub(crate) fn twins(&self, key: &DeviceKey) -> PathBuf {
        self.named(key, "twins")
    }

    /// All, in the order in which they are removed. Data without a map is not believed, and a table without
    /// data is what opening a store sweeps.
    pub(crate) fn all(&self, key: &DeviceKey) -> [PathBuf; 4] {
        [
            self.map(key),
            self.data(key),
            self.twins(key),
            self.chunks(key),
        ]
    }

    /// A name that no other file has, of a table that is being written.
    pub(crate) fn unfinished(&self, key: &DeviceKey) -> PathBuf {
        let number = self.unfinished.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{UNFINISHED}{number}-{}", key.hex()))
    }

    fn named(&self, key: &DeviceKey, extension: &str) -> PathBuf {
        self.dir.join(format!("{}.{extension}", key.hex()))
    }
}
