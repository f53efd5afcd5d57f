//! Devices with chunk tables: made, opened and read.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, Once, RwLock};

use crate::device::{Device, FileStorage, Opener, io, options, remove_if_there};
use crate::error::DeviceError;
use crate::index::{Index, Source};
use crate::key::DeviceKey;
use crate::layout::sync_dir;
use crate::store::{Store, allocated};
use crate::table::{TableChunk, TableFault, TableFile, check_chunks};

/// What a device takes on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceUsage {
    /// The bytes of its data that are allocated.
    pub data_bytes: u64,
    /// The bytes of what says which chunks it has and which of its blocks are present.
    pub map_bytes: u64,
}

/// What the store knows of chunk tables.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) index: RwLock<Index>,
    pub(crate) loaded: Once,
    /// Held while twins are appended: two would take the same place.
    pub(crate) learning: Mutex<()>,
    /// Devices whose tables were written since the last were made durable.
    unsynced: Mutex<BTreeSet<DeviceKey>>,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            index: RwLock::default(),
            loaded: Once::new(),
            learning: Mutex::default(),
            unsynced: Mutex::default(),
        }
    }
}

impl Tables {
    pub(crate) fn forget(&self, key: &DeviceKey) {
        self.index.write().remove(key);
        self.unsynced.lock().remove(key);
    }

    /// Makes durable all tables: what is made durable after this may speak of their devices.
    pub(crate) fn sync(&self, opener: &Opener) -> io::Result<()> {
        let mut unsynced = self.unsynced.lock();
        if unsynced.is_empty() {
            return Ok(());
        }
        for key in unsynced.iter() {
            match fs_err::File::open(opener.paths().chunks(key)) {
                Ok(file) => file.sync_data()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        sync_dir(opener.paths().dir())?;
        unsynced.clear();
        Ok(())
    }
}

impl Store {
    /// Creates a device on which these chunks belong, sorted by their places and not overlapping; it ends
    /// where the last of them does. What belongs where on it never changes, so that others may point at
    /// its chunks, which [`find`](Self::find) knows from now on. None of them is present yet.
    ///
    /// This does not wait for the disk: the table is durable before the first data is, and before the next
    /// file of an image is by [`put_image_file`](Self::put_image_file) or
    /// [`sync_images`](Self::sync_images). A crash before that leaves a device whose table is not believed,
    /// or none.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Chunk`] if the chunks can't make a device, [`DeviceError::Exists`] if there is one,
    /// and if the filesystem refuses.
    pub fn create_device(
        &self,
        key: &DeviceKey,
        table: &[TableChunk],
    ) -> Result<Arc<Device>, DeviceError> {
        let bytes = check_chunks(table)?;
        let unfinished = self.opener.paths().unfinished(key);
        let created = self
            .write_table(&unfinished, key, bytes, table)
            .and_then(|()| self.create_with(&unfinished, key, bytes));
        match created {
            Ok(device) => {
                let hashing = self.tables.index.read().hashing();
                let hashes = table.iter().map(|it| hashing.hash((it.digest, it.bytes)));
                let hashes: Vec<u64> = hashes.collect();
                let mut index = self.tables.index.write();
                // One that was read by mistake, while an earlier device of that key was removed.
                index.remove(key);
                if let Some(added) = index.add_device(*key) {
                    index.add(added, Source::Table, (0..).zip(hashes));
                }
                Ok(device)
            }
            Err(error) => {
                // A full disk is no place to leave halves behind; what can't be removed now is later.
                drop(fs_err::remove_file(&unfinished));
                Err(error)
            }
        }
    }

    fn write_table(
        &self,
        path: &Path,
        key: &DeviceKey,
        bytes: u64,
        table: &[TableChunk],
    ) -> Result<(), DeviceError> {
        let file = options().create_new(true).open(path);
        let (file, _) = file.map_err(|e| io("create", path, e))?.into_parts();
        TableFile::write(&self.opener.storage(file), key, bytes, table)
            .map_err(|e| io("write", path, e))
    }

    fn create_with(
        &self,
        unfinished: &Path,
        key: &DeviceKey,
        bytes: u64,
    ) -> Result<Arc<Device>, DeviceError> {
        let paths = self.opener.paths();
        let mut opened = self.opened.lock();
        let is_there = |path: &Path| fs_err::symlink_metadata(path).is_ok();
        if is_there(&paths.chunks(key)) || is_there(&paths.data(key)) {
            return Err(DeviceError::Exists { key: *key });
        }
        // What is left of a device that was removed speaks of another.
        remove_if_there(&paths.twins(key))?;
        remove_if_there(&paths.map(key))?;
        let path = paths.chunks(key);
        fs_err::rename(unfinished, &path).map_err(|e| io("create", &path, e))?;
        match self.opener.open(key, bytes, true) {
            Ok(device) => {
                self.tables.unsynced.lock().insert(*key);
                Ok(opened.keep(device))
            }
            Err(error) => {
                for path in paths.all(key) {
                    drop(remove_if_there(&path));
                }
                Err(error)
            }
        }
    }

    /// Opens a device that was [created](Self::create_device) with a table, which says its size. A device
    /// that is open already is returned as it is, poisoned or not. As for marks, see
    /// [`device`](Self::device).
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoTable`] if there is no such device, [`DeviceError::Table`] if its table is not
    /// believed, and as [`device`](Self::device).
    pub fn open_device(&self, key: &DeviceKey) -> Result<Arc<Device>, DeviceError> {
        let mut opened = self.opened.lock();
        if let Some(device) = opened.open_device(key) {
            return Ok(device);
        }
        // While the lock is held nobody removes the device.
        let bytes = self.device_bytes(key)?;
        let believe_volatile = opened.believes_volatile(key);
        let device = self.opener.open(key, bytes, believe_volatile)?;
        Ok(opened.keep(device))
    }

    /// What belongs where on a device, by place.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoTable`] if there is no such device, [`DeviceError::Table`] if its table is not
    /// believed, and if the filesystem refuses.
    pub fn table(&self, key: &DeviceKey) -> Result<Vec<TableChunk>, DeviceError> {
        let path = self.opener.paths().chunks(key);
        let chunks = self
            .open_table(key)?
            .chunks()
            .map_err(|e| io("read", &path, e))?;
        chunks.map_err(|fault| distrust(&path, fault))
    }

    /// The size of a device, from the header of its table: cheap.
    ///
    /// # Errors
    ///
    /// As [`table`](Self::table), but damage past the header is not noticed.
    pub fn device_bytes(&self, key: &DeviceKey) -> Result<u64, DeviceError> {
        Ok(self.open_table(key)?.header().device_bytes)
    }

    pub(crate) fn open_table(
        &self,
        key: &DeviceKey,
    ) -> Result<TableFile<FileStorage>, DeviceError> {
        let path = self.opener.paths().chunks(key);
        let file = match fs_err::File::open(&path) {
            Ok(file) => file.into_parts().0,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(DeviceError::NoTable { key: *key });
            }
            Err(error) => return Err(io("open", &path, error)),
        };
        TableFile::open(self.opener.storage(file), key)
            .map_err(|e| io("read", &path, e))?
            .map_err(|fault| distrust(&path, fault))
    }

    /// What a device takes on disk. One that is not there takes nothing.
    ///
    /// # Errors
    ///
    /// If the filesystem refuses.
    pub fn device_usage(&self, key: &DeviceKey) -> io::Result<DeviceUsage> {
        let paths = self.opener.paths();
        let of = |path: &Path| match fs_err::symlink_metadata(path) {
            Ok(found) => Ok(allocated(&found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        };
        Ok(DeviceUsage {
            data_bytes: of(&paths.data(key))?,
            map_bytes: of(&paths.map(key))? + of(&paths.chunks(key))? + of(&paths.twins(key))?,
        })
    }
}

pub(crate) fn distrust(path: &Path, source: TableFault) -> DeviceError {
    DeviceError::Table {
        path: path.to_owned(),
        source,
    }
}
