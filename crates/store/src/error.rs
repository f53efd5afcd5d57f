//! What can go wrong, one enum per operation.

use std::io;
use std::path::PathBuf;

use crate::key::DeviceKey;

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
    /// The range does not begin at a block or does not end within the device. Nothing was done.
    #[error(
        "bytes {start}..{end} can't be written to {}: a range begins at a multiple of {} and ends \
         within the device's {device_bytes} bytes",
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
