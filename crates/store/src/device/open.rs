//! Opening the two files of a device.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err::os::unix::fs::OpenOptionsExt as _;
use rustix::fs::{AtFlags, FallocateFlags, OFlags, Statx, StatxFlags};

use super::blocks::{Blocks, Found};
use super::file::Device;
use super::format::{BLOCK_BYTES, BootId, DEVICE_BYTES_MAX, Distrust, Geometry, Identity};
use super::glimpse::Glimpse;
use super::map::{Loaded, Map};
use super::paths::Paths;
use super::storage::FileStorage;
use crate::error::{DeviceError, is_no_space};
use crate::key::DeviceKey;

/// Opens devices in one directory, under one boot.
#[derive(Debug)]
pub(crate) struct Opener {
    paths: Paths,
    /// To make names durable.
    dir_file: Arc<File>,
    boot: BootId,
}

impl Opener {
    pub(crate) fn new(dir: PathBuf, boot: BootId) -> io::Result<Self> {
        let (dir_file, _) = fs_err::File::open(&dir)?.into_parts();
        Ok(Self {
            paths: Paths::new(dir),
            dir_file: Arc::new(dir_file),
            boot,
        })
    }

    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// A file of the directory of devices that is open.
    pub(crate) fn storage(&self, file: File) -> FileStorage {
        FileStorage::new(file, Arc::clone(&self.dir_file))
    }

    /// Looks at what is present on a device that is not open, without opening its data file: that may be
    /// marked for events. Nothing is written, and a map that is not believed shows nothing.
    pub(crate) fn glimpse(
        &self,
        key: &DeviceKey,
        bytes: u64,
        believe_volatile: bool,
    ) -> io::Result<Option<Glimpse>> {
        let Some(identity) = identify_name(key, bytes, &self.paths.data(key))? else {
            return Ok(None);
        };
        let file = match fs_err::File::open(self.paths.map(key)) {
            Ok(file) => file.into_parts().0,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let map = Map::new(self.storage(file), identity);
        Glimpse::new(map, self.boot, believe_volatile)
    }

    /// Removes what is left of devices that were not created or not removed to the end: there is no device
    /// without data.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        let mut keys = BTreeSet::new();
        for entry in fs_err::read_dir(self.paths.dir())? {
            let name = entry?.file_name();
            let key = name.to_str().and_then(|name| name.split_once('.'));
            keys.extend(key.and_then(|(key, _)| key.parse::<DeviceKey>().ok()));
        }
        for key in keys {
            if fs_err::symlink_metadata(self.paths.data(&key)).is_ok() {
                continue;
            }
            for path in self.paths.all(&key) {
                match fs_err::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Opens the device, or creates it.
    pub(crate) fn open(
        &self,
        key: &DeviceKey,
        bytes: u64,
        believe_volatile: bool,
    ) -> Result<Device, DeviceError> {
        check_size(bytes)?;
        let path = self.paths.data(key);
        let (data, is_new) = open_data(&path, bytes)?;
        self.with_data(key, bytes, data, is_new, believe_volatile)
    }

    /// Opens the device through a descriptor of its data file.
    pub(crate) fn adopt(
        &self,
        key: &DeviceKey,
        bytes: u64,
        data: OwnedFd,
        believe_volatile: bool,
    ) -> Result<Device, DeviceError> {
        check_size(bytes)?;
        let data = File::from(data);
        self.check_descriptor(key, bytes, &data)?;
        self.with_data(key, bytes, data, false, believe_volatile)
    }

    /// Whether `data` is the device's data file and can be written.
    pub(crate) fn check_descriptor(
        &self,
        key: &DeviceKey,
        bytes: u64,
        data: &File,
    ) -> Result<(), DeviceError> {
        let path = self.paths.data(key);
        let given = data.metadata().map_err(|e| io("inspect", &path, e))?;
        // By its name, without opening it: that is what the descriptor saves us from.
        let named = match fs_err::symlink_metadata(&path) {
            Ok(named) => Some(named),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io("inspect", &path, error)),
        };
        let is_named =
            named.is_some_and(|named| (named.dev(), named.ino()) == (given.dev(), given.ino()));
        let flags = rustix::fs::fcntl_getfl(data)
            .map_err(|e| io("inspect the descriptor of", &path, e.into()))?;
        let reason = if !is_named {
            "it is another file"
        } else if !given.is_file() {
            "it is not a regular file"
        } else if given.len() != bytes {
            "the file has another size"
        } else if flags & OFlags::ACCMODE != OFlags::RDWR {
            "it was not opened for reading and writing"
        } else if flags.contains(OFlags::APPEND) {
            "it was opened for appending"
        } else {
            return Ok(());
        };
        Err(DeviceError::NotTheFile { path, reason })
    }

    fn with_data(
        &self,
        key: &DeviceKey,
        bytes: u64,
        data: File,
        is_new: bool,
        believe_volatile: bool,
    ) -> Result<Device, DeviceError> {
        let path = self.paths.data(key);
        let map_path = self.paths.map(key);
        let identity = identify(key, bytes, &data).map_err(|e| io("inspect", &path, e))?;
        let data = self.storage(data).with_companion(self.paths.chunks(key));
        let distrust = match self.load_map(&map_path, identity)? {
            Ok((map, loaded)) => {
                let (blocks, found) =
                    Blocks::open(&path, data, map, loaded, self.boot, believe_volatile)
                        .map_err(|e| io("write", &map_path, e))?;
                report(&path, found);
                return Ok(Device::new(identity, blocks));
            }
            Err(distrust) => distrust,
        };
        if !(is_new && distrust == Distrust::Missing) {
            tracing::warn!(
                path = %map_path.display(),
                reason = %distrust,
                "a device starts empty, for its map can't be believed"
            );
        }
        let map = self.create_map(&map_path, identity)?;
        let blocks =
            Blocks::create(&path, data, map, self.boot).map_err(|e| io("write", &map_path, e))?;
        Ok(Device::new(identity, blocks))
    }

    /// Reads the map, if there is one to be believed.
    fn load_map(
        &self,
        path: &Path,
        identity: Identity,
    ) -> Result<Result<(Map<FileStorage>, Loaded), Distrust>, DeviceError> {
        let file = match options().open(path) {
            Ok(file) => file.into_parts().0,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Err(Distrust::Missing));
            }
            Err(error) => return Err(io("open", path, error)),
        };
        let map = Map::new(self.storage(file), identity);
        let loaded = map.load().map_err(|e| io("read", path, e))?;
        Ok(loaded.map(|loaded| (map, loaded)))
    }

    /// An empty file for a map, in the place of one that is not believed.
    fn create_map(&self, path: &Path, identity: Identity) -> Result<Map<FileStorage>, DeviceError> {
        remove_if_there(path)?;
        let file = options()
            .create_new(true)
            .open(path)
            .map_err(|e| io("create", path, e))?
            .into_parts()
            .0;
        // With its space set aside, marking blocks present never meets a full disk.
        let bytes = Geometry::new(identity.bytes).file_bytes();
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(io("create", path, error.into())),
        }
        Ok(Map::new(self.storage(file), identity))
    }
}

/// How the files of a device are opened: not through a symbolic link, for others to read none.
pub(crate) fn options() -> fs_err::OpenOptions {
    let mut options = fs_err::OpenOptions::new();
    let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    options
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(no_follow);
    options
}

fn check_size(bytes: u64) -> Result<(), DeviceError> {
    if bytes.is_multiple_of(BLOCK_BYTES) && bytes <= DEVICE_BYTES_MAX {
        return Ok(());
    }
    Err(DeviceError::Size { bytes })
}

/// Opens the data file; whether it is new.
fn open_data(path: &Path, bytes: u64) -> Result<(File, bool), DeviceError> {
    match options().open(path) {
        Ok(file) => {
            let (file, _) = file.into_parts();
            let found = file.metadata().map_err(|e| io("inspect", path, e))?;
            if found.is_file() && found.len() == bytes {
                return Ok((file, false));
            }
            // A new file, not this one with another length: what its map says of the part that was cut
            // off or never written would be believed, and who has it mounted would see it change.
            tracing::warn!(
                path = %path.display(),
                found_bytes = found.len(),
                bytes,
                "a device starts empty, for its data file has another size"
            );
            remove_if_there(path)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io("open", path, error)),
    }
    let (file, _) = options()
        .create_new(true)
        .open(path)
        .map_err(|e| io("create", path, e))?
        .into_parts();
    file.set_len(bytes).map_err(|e| io("create", path, e))?;
    Ok((file, true))
}

pub(crate) fn remove_if_there(path: &Path) -> Result<(), DeviceError> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("remove", path, error)),
        _ => Ok(()),
    }
}

/// What tells this data file from any other that has or had its name.
fn identify(key: &DeviceKey, bytes: u64, data: &File) -> io::Result<Identity> {
    let stat = rustix::fs::statx(data, "", AtFlags::EMPTY_PATH, IDENTITY_FLAGS)?;
    Ok(identity(key, bytes, &stat))
}

/// The same of a data file that is not open; nothing if there is none of that size.
fn identify_name(key: &DeviceKey, bytes: u64, path: &Path) -> io::Result<Option<Identity>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    match rustix::fs::statx(rustix::fs::CWD, path, flags, IDENTITY_FLAGS) {
        Ok(stat) => Ok((stat.stx_size == bytes).then(|| identity(key, bytes, &stat))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

const IDENTITY_FLAGS: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

fn identity(key: &DeviceKey, bytes: u64, stat: &Statx) -> Identity {
    let has_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    let seconds = u64::try_from(stat.stx_btime.tv_sec).unwrap_or_default();
    let born_ns = seconds
        .wrapping_mul(1_000_000_000)
        .wrapping_add(u64::from(stat.stx_btime.tv_nsec));
    Identity {
        key: *key,
        bytes,
        inode: stat.stx_ino,
        born_ns: if has_birth { born_ns } else { 0 },
    }
}

fn report(path: &Path, found: Found) {
    if found.damaged_sectors > 0 {
        tracing::warn!(
            path = %path.display(),
            damaged_sectors = found.damaged_sectors,
            "part of a device starts empty, for its map is damaged there"
        );
    }
    if found.lost_blocks > 0 {
        tracing::info!(
            path = %path.display(),
            blocks = found.lost_blocks,
            "blocks that were not durable are forgotten"
        );
    }
}

pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> DeviceError {
    let path = path.to_owned();
    if is_no_space(&source) {
        return DeviceError::NoSpace { path, source };
    }
    DeviceError::Io {
        action,
        path,
        source,
    }
}
