//! What can go wrong, one enum per operation.

use std::io;
use std::path::PathBuf;

use draught_digest::Digest;

use crate::key::DeviceKey;
use crate::table::TableFault;

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open.
    #[error("the store {} is in use by another process: stop that one first", root.display())]
    Locked {
        /// The store's directory.
        root: PathBuf,
    },
    /// There are devices or images, but nothing says in which layout.
    #[error(
        "{} holds {name:?} but no file \"version\": name another directory, or remove what is there",
        root.display()
    )]
    NotAStore {
        /// The store's directory.
        root: PathBuf,
        /// What was found in it.
        name: String,
    },
    /// The store was written by a program with another layout.
    #[error(
        "the store {} has layout {found:?} and this program knows {known:?}: \
         use the program that wrote it, or remove the store",
        root.display()
    )]
    Version {
        /// The store's directory.
        root: PathBuf,
        /// What its file `version` says.
        found: String,
        /// What this program writes there.
        known: &'static str,
    },
    /// The filesystem refused.
    #[error("failed to {action} for the store {}", root.display())]
    Io {
        /// The store's directory.
        root: PathBuf,
        /// What was tried, as in "failed to …".
        action: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Why a device can't be opened, created or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No device can have this size.
    #[error(
        "a device can't have {bytes} bytes: it must be a multiple of {} and at most {}",
        crate::BLOCK_BYTES,
        crate::DEVICE_BYTES_MAX
    )]
    Size {
        /// The bytes asked for.
        bytes: u64,
    },
    /// The device is open already, with another size.
    #[error("device {key} is open with {open_bytes} bytes, not {asked_bytes}: close it first")]
    OtherSize {
        /// The device.
        key: DeviceKey,
        /// Its size.
        open_bytes: u64,
        /// The size asked for.
        asked_bytes: u64,
    },
    /// A descriptor was given that is not the device's data file, or can't serve as its writer.
    #[error("the descriptor given for {} can't be used: {reason}", path.display())]
    NotTheFile {
        /// The data file.
        path: PathBuf,
        /// What is wrong with the descriptor.
        reason: &'static str,
    },
    /// Something holds the device open.
    #[error("device {key} is in use: detach the images that use it first")]
    InUse {
        /// The device.
        key: DeviceKey,
    },
    /// A device can't be made of these chunks.
    #[error("chunk {index} of the device, at {place}, is refused: {reason}")]
    Chunk {
        /// Which of the chunks.
        index: u64,
        /// Where it should begin.
        place: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The device is there already. What belongs where on it never changes.
    #[error("device {key} exists: open it, or choose another key")]
    Exists {
        /// The device.
        key: DeviceKey,
    },
    /// Nothing says what belongs where on the device: it is not there, was made by an earlier version, or
    /// lost its table.
    #[error("device {key} has no chunk table: remove it and attach its images again")]
    NoTable {
        /// The device.
        key: DeviceKey,
    },
    /// What says so can't be believed.
    #[error(
        "the chunk table {} is not believed: remove its device and attach its images again",
        path.display()
    )]
    Table {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: TableFault,
    },
    /// No chunk of the device begins there, or one whose digest is another.
    #[error("device {key} has no chunk at {place} of which {digest} can be the digest")]
    NoChunk {
        /// The device.
        key: DeviceKey,
        /// Where it should begin.
        place: u64,
        /// The digest that it should have.
        digest: Digest,
    },
    /// The disk is full.
    #[error("no space is left to create {}: free some on its filesystem", path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// What the filesystem said: its space, or a quota.
        source: io::Error,
    },
    /// The filesystem refused.
    #[error("failed to {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why data was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The disk is full. The device stays usable, and what is present stays present.
    #[error("no space is left for {}: free some on its filesystem", path.display())]
    NoSpace {
        /// The data file.
        path: PathBuf,
        /// What the filesystem said: its space, or a quota.
        source: io::Error,
    },
    /// The disk failed. The device is poisoned from now on.
    #[error(
        "failed to {action} {}: check the disk, then open the device again",
        path.display()
    )]
    Failed {
        /// What was tried.
        action: &'static str,
        /// The data file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The disk failed earlier; nothing is taken until the device is opened anew.
    #[error(
        "{} takes nothing since its disk failed: check the disk, then open the device again",
        path.display()
    )]
    Poisoned {
        /// The data file.
        path: PathBuf,
    },
    /// The filesystem can't give back space. The blocks are not present any more, and still take it.
    #[error(
        "the filesystem of {} can't give back a part of a file: use one that can, or remove the device",
        path.display()
    )]
    NoHoles {
        /// The data file.
        path: PathBuf,
        /// What the filesystem said.
        source: io::Error,
    },
    /// The range does not begin at a block or does not end within the device. Nothing was done.
    #[error(
        "bytes {start}..{end} of {} can't be changed: a range begins at a multiple of {} and ends \
         within the device's {device_bytes} bytes, at such a multiple where it is punched",
        path.display(),
        crate::BLOCK_BYTES
    )]
    OutOfRange {
        /// The data file.
        path: PathBuf,
        /// The first byte.
        start: u64,
        /// One past the last byte.
        end: u64,
        /// The device's size.
        device_bytes: u64,
    },
}

/// Whether an error means a full disk or a used-up quota, which waiting or cleaning can cure.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
