//! The store: devices by key, images by name.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::device::{BootId, Device, Opener, remove_if_there};
use crate::error::{DeviceError, OpenError};
use crate::image::Images;
use crate::key::DeviceKey;
use crate::layout::{Layout, sync_dir};
use crate::tables::Tables;

/// The bytes of a node: devices that the kernel reads, and files that belong to images.
///
/// One process at a time has a store open. Methods may be called from any number of threads.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    pub(crate) opener: Opener,
    pub(crate) images: Images,
    pub(crate) opened: Mutex<Opened>,
    pub(crate) tables: Tables,
    layout: Layout,
}

/// The devices that are open.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    entries: BTreeMap<DeviceKey, Entry>,
    /// Devices that were poisoned when they were forgotten. Their maps say so too, if the disk let them.
    poisoned: BTreeSet<DeviceKey>,
}

/// A device that is open. While anybody holds it, it must not be opened a second time: two would
/// overwrite each other's bits.
#[derive(Debug)]
struct Entry {
    device: Weak<Device>,
    /// Keeps it open until it is forgotten.
    kept: Option<Arc<Device>>,
}

impl Store {
    /// Opens the store in the directory `root`, which is created if it is not there.
    ///
    /// `boot_id` is the text of `/proc/sys/kernel/random/boot_id`: under another one, what was not made
    /// durable is forgotten.
    ///
    /// # Errors
    ///
    /// If another process has it open, it has another layout, or the filesystem refuses.
    pub fn open(root: &Path, boot_id: &str) -> Result<Self, OpenError> {
        let layout = Layout::open(root)?;
        let opener =
            Opener::new(layout.devices.clone(), BootId::new(boot_id)).map_err(|source| {
                OpenError::Io {
                    root: root.to_owned(),
                    action: "open the directory of devices",
                    source,
                }
            })?;
        opener.sweep().map_err(|source| OpenError::Io {
            root: root.to_owned(),
            action: "remove what is left of devices",
            source,
        })?;
        Ok(Self {
            root: root.to_owned(),
            opener,
            images: Images::new(layout.images.clone()),
            opened: Mutex::default(),
            tables: Tables::default(),
            layout,
        })
    }

    /// Makes the store's directories again if somebody removed them while it was open; says whether that was so.
    /// What is open goes on, on files without names.
    ///
    /// # Errors
    ///
    /// If they can't be made.
    pub fn make_again(&self) -> io::Result<bool> {
        self.layout.make_again(&self.root)
    }

    /// The store's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Opens a device of `bytes` bytes, or creates it with nothing present. A device that is open already
    /// is returned as it is, poisoned or not.
    ///
    /// The data file is opened here: before it is marked for events, or writing to it would wait for
    /// ourselves. Where the mark stands already, [`adopt`](Self::adopt) instead.
    ///
    /// # Errors
    ///
    /// If there can be no device of that size, it is open with another one, or the filesystem refuses. A
    /// map that can't be believed is no error: the device then starts empty, and a warning says why.
    pub fn device(&self, key: &DeviceKey, bytes: u64) -> Result<Arc<Device>, DeviceError> {
        let mut opened = self.opened.lock();
        if let Some(device) = opened.open_device(key) {
            return same_size(device, bytes);
        }
        let believe_volatile = opened.believes_volatile(key);
        let device = self.opener.open(key, bytes, believe_volatile)?;
        Ok(opened.keep(device))
    }

    /// Opens a device through `file`, a read-write descriptor of its data file, without opening that
    /// file again: a new worker gets the descriptor that was opened before the file was marked for events.
    /// A device that is open already is returned as it is, and `file` is closed.
    ///
    /// # Errors
    ///
    /// As [`device`](Self::device), and if `file` is not the data file or can't be written.
    pub fn adopt(
        &self,
        key: &DeviceKey,
        bytes: u64,
        file: OwnedFd,
    ) -> Result<Arc<Device>, DeviceError> {
        let mut opened = self.opened.lock();
        if let Some(device) = opened.open_device(key) {
            return same_size(device, bytes);
        }
        let believe_volatile = opened.believes_volatile(key);
        let device = self.opener.adopt(key, bytes, file, believe_volatile)?;
        Ok(opened.keep(device))
    }

    /// Lets go of a device. It is closed when the last that holds it lets go of it too; until then
    /// [`device`](Self::device) returns the same one, except when it is poisoned: then it is opened anew,
    /// with what is durable.
    pub fn forget(&self, key: &DeviceKey) {
        self.opened.lock().forget(key);
    }

    /// The devices that are open and not forgotten, for example to [sync](Device::sync) them all.
    #[must_use]
    pub fn open_devices(&self) -> Vec<Arc<Device>> {
        let opened = self.opened.lock();
        opened
            .entries
            .values()
            .filter_map(|entry| entry.kept.clone())
            .collect()
    }

    /// All devices of this store, open or not.
    ///
    /// # Errors
    ///
    /// If the directory can't be read.
    pub fn devices(&self) -> io::Result<Vec<DeviceKey>> {
        let mut keys = BTreeSet::new();
        for entry in fs_err::read_dir(self.opener.paths().dir())? {
            let name = entry?.file_name();
            let key = name.to_str().and_then(|name| name.strip_suffix(".data"));
            keys.extend(key.and_then(|key| key.parse::<DeviceKey>().ok()));
        }
        Ok(keys.into_iter().collect())
    }

    /// Removes a device, its data and its table. One that is not there is no error.
    ///
    /// # Errors
    ///
    /// [`DeviceError::InUse`] if anybody but the store holds the device.
    pub fn remove_device(&self, key: &DeviceKey) -> Result<(), DeviceError> {
        let mut opened = self.opened.lock();
        opened.forget(key);
        if opened.entries.contains_key(key) {
            return Err(DeviceError::InUse { key: *key });
        }
        // Nobody is sent to it from here on, and again once a table that was being read is gone.
        self.tables.forget(key);
        for path in self.opener.paths().all(key) {
            remove_if_there(&path)?;
        }
        self.tables.forget(key);
        opened.poisoned.remove(key);
        let dir = self.opener.paths().dir();
        sync_dir(dir).map_err(|source| DeviceError::Io {
            action: "make durable the directory",
            path: dir.to_owned(),
            source,
        })
    }

    /// The bytes that all devices take on disk, with their maps. Holes take none.
    ///
    /// # Errors
    ///
    /// If the directory can't be read.
    pub fn usage(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for entry in fs_err::read_dir(self.opener.paths().dir())? {
            match entry?.metadata() {
                Ok(found) if found.is_file() => bytes += allocated(&found),
                Ok(_) => {}
                // Removed while we looked.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }

    /// The directory of an image's files; it exists once the first was [put](Self::put_image_file).
    /// Any name will do: what a file name can't have is encoded.
    #[must_use]
    pub fn image_dir(&self, image: &str) -> PathBuf {
        self.images.dir(image)
    }

    /// The path of a file of an image, for what must be opened by path.
    #[must_use]
    pub fn image_file(&self, image: &str, file: &str) -> PathBuf {
        self.images.file(image, file)
    }

    /// Writes a file of an image, durably: after a crash it has its old content or this. Not to be called
    /// for the same file by two threads at once.
    ///
    /// # Errors
    ///
    /// If the filesystem refuses, also to make durable the tables of devices, or `bytes` are more than
    /// [`IMAGE_FILE_BYTES_MAX`](crate::IMAGE_FILE_BYTES_MAX).
    pub fn put_image_file(&self, image: &str, file: &str, bytes: &[u8]) -> io::Result<()> {
        // It may speak of devices that were just created.
        self.tables.sync(&self.opener)?;
        self.images.put(image, file, bytes)
    }

    /// Writes a file of an image without waiting for the disk: it is replaced at once for whoever reads it,
    /// and durable with the next [`sync_images`](Self::sync_images). After a power cut before that it may
    /// have its old content, this, be missing, or have any other: the caller's files have checksums. Not to
    /// be called for the same file by two threads at once.
    ///
    /// # Errors
    ///
    /// As [`put_image_file`](Self::put_image_file).
    pub fn put_image_file_soon(&self, image: &str, file: &str, bytes: &[u8]) -> io::Result<()> {
        self.images.put_soon(image, file, bytes)
    }

    /// Makes durable the tables of all devices, and then all files that were
    /// [put soon](Self::put_image_file_soon) before the call. Cheap when nothing is new.
    ///
    /// # Errors
    ///
    /// If the filesystem refuses; what is not durable is tried again by the next call. A disk that failed
    /// may have lost a file for good and not say so a second time: its checksum tells.
    pub fn sync_images(&self) -> io::Result<()> {
        self.images.sync(|| self.tables.sync(&self.opener))
    }

    /// Reads a file of an image.
    ///
    /// # Errors
    ///
    /// Of kind `NotFound` if there is none; otherwise as the filesystem says.
    pub fn read_image_file(&self, image: &str, file: &str) -> io::Result<Vec<u8>> {
        self.images.read(image, file)
    }

    /// The names of all images, sorted; none if the directory can't be read, with a warning.
    #[must_use]
    pub fn images(&self) -> Vec<String> {
        self.images.names().unwrap_or_else(|error| {
            tracing::warn!(%error, "the images can't be listed");
            Vec::new()
        })
    }

    /// Removes all files of an image at once. One that is not there is no error.
    ///
    /// # Errors
    ///
    /// If the filesystem refuses.
    pub fn remove_image(&self, image: &str) -> io::Result<()> {
        self.images.remove(image)
    }
}

impl Opened {
    /// The device, if it is open and can be used, or was never forgotten.
    pub(crate) fn open_device(&mut self, key: &DeviceKey) -> Option<Arc<Device>> {
        let entry = self.entries.get_mut(key)?;
        if let Some(kept) = &entry.kept {
            return Some(Arc::clone(kept));
        }
        let device = entry
            .device
            .upgrade()
            .filter(|device| !device.is_poisoned())?;
        entry.kept = Some(Arc::clone(&device));
        Some(device)
    }

    /// Whether what was not durable on a device that is to be opened counts.
    pub(crate) fn believes_volatile(&self, key: &DeviceKey) -> bool {
        !self.poisoned.contains(key)
    }

    /// The device, if anybody has it open. It is not kept open by this.
    pub(crate) fn look(&self, key: &DeviceKey) -> Option<Arc<Device>> {
        self.entries.get(key)?.device.upgrade()
    }

    pub(crate) fn keep(&mut self, device: Device) -> Arc<Device> {
        let device = Arc::new(device);
        self.poisoned.remove(&device.key());
        self.entries.insert(
            device.key(),
            Entry {
                device: Arc::downgrade(&device),
                kept: Some(Arc::clone(&device)),
            },
        );
        device
    }

    fn forget(&mut self, key: &DeviceKey) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let kept = entry.kept.take();
        if kept
            .or_else(|| entry.device.upgrade())
            .is_some_and(|device| device.is_poisoned())
        {
            self.poisoned.insert(*key);
        }
        if entry.device.strong_count() == 0 {
            self.entries.remove(key);
        }
    }
}

/// What a file takes on disk.
pub(crate) fn allocated(file: &std::fs::Metadata) -> u64 {
    // What stat calls a block, whatever the filesystem's own are.
    const STAT_BLOCK_BYTES: u64 = 512;
    file.blocks() * STAT_BLOCK_BYTES
}

fn same_size(device: Arc<Device>, bytes: u64) -> Result<Arc<Device>, DeviceError> {
    if device.bytes() == bytes {
        return Ok(device);
    }
    Err(DeviceError::OtherSize {
        key: device.key(),
        open_bytes: device.bytes(),
        asked_bytes: bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::WriteError;

    const KEY: DeviceKey = DeviceKey([3; 32]);

    fn fill(device: &Device, block: u64) -> Result<(), WriteError> {
        device.write(block * 4096, &[1; 4096])?;
        device.mark_present(block * 4096..(block + 1) * 4096)
    }

    #[test]
    fn a_poisoned_device_is_opened_anew_once_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "boot").unwrap();
        let device = store.device(&KEY, 1 << 20).unwrap();
        fill(&device, 0).unwrap();
        device.sync().unwrap();
        fill(&device, 1).unwrap();
        device.poison_for_test();
        assert!(device.is_poisoned() && fill(&device, 2).is_err() && device.sync().is_err());
        assert_eq!(device.bytes_present(), 4096);
        assert!(Arc::ptr_eq(&device, &store.device(&KEY, 1 << 20).unwrap()));

        store.forget(&KEY);
        let next = store.device(&KEY, 1 << 20).unwrap();
        assert!(!Arc::ptr_eq(&device, &next) && !next.is_poisoned());
        assert_eq!(next.missing(0..12288), vec![4096..12288]);
        fill(&next, 2).unwrap();
        // The old one, still held by somebody, changes nothing any more.
        assert!(fill(&device, 3).is_err() && device.sync().is_err());
        drop((device, next, store));
        let store = Store::open(dir.path(), "boot").unwrap();
        let last = store.device(&KEY, 1 << 20).unwrap();
        assert_eq!(last.missing(0..16384), vec![4096..8192, 12288..16384]);
    }

    #[test]
    fn a_poisoned_device_whose_map_does_not_say_so_is_not_believed_either() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "boot").unwrap();
        let device = store.device(&KEY, 1 << 20).unwrap();
        fill(&device, 0).unwrap();
        let map = store.opener.paths().map(&KEY);
        let before = fs_err::read(&map).unwrap();
        device.poison_for_test();
        // As if the note had not reached the file.
        fs_err::write(&map, before).unwrap();
        drop(device);
        store.forget(&KEY);
        assert_eq!(store.device(&KEY, 1 << 20).unwrap().bytes_present(), 0);
    }
}
