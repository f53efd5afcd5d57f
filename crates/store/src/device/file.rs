//! A device of the store, over real files.

use std::fmt;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::blocks::Blocks;
use super::format::Identity;
use super::storage::FileStorage;
use crate::error::WriteError;
use crate::key::DeviceKey;

/// A sparse file of decoded chunks in blocks of [`BLOCK_BYTES`](crate::BLOCK_BYTES), and which of them
/// are present.
///
/// All methods may be called from any number of threads.
pub struct Device {
    key: DeviceKey,
    inode: u64,
    blocks: Blocks<FileStorage>,
}

impl Device {
    pub(super) fn new(identity: Identity, blocks: Blocks<FileStorage>) -> Self {
        Self {
            key: identity.key,
            inode: identity.inode,
            blocks,
        }
    }

    /// Its name.
    #[must_use]
    pub fn key(&self) -> DeviceKey {
        self.key
    }

    /// Its size, a multiple of [`BLOCK_BYTES`](crate::BLOCK_BYTES).
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blocks.bytes()
    }

    /// The data file, which the kernel is to mount as a device.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.blocks.path()
    }

    /// The data file's inode number, by which events name it.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// The read-write descriptor through which this device is written. To hand to the keeper, so that
    /// the next worker can [adopt](crate::Store::adopt) it.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.blocks.data().as_fd()
    }

    /// Whether all blocks that `range` (of bytes) touches are present.
    ///
    /// What lies past the end of the device counts as present, for nothing can be drawn for it: this is
    /// true exactly when [`missing`](Self::missing) returns nothing. An empty range is present.
    #[must_use]
    pub fn is_present(&self, range: Range<u64>) -> bool {
        self.blocks.is_present(range)
    }

    /// The blocks that `range` (of bytes) touches and that are not present: byte ranges of whole blocks,
    /// in order, none touching the next.
    #[must_use]
    pub fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.blocks.missing(range)
    }

    /// Writes bytes that were verified at `offset`, which is a multiple of a block, and says that they are
    /// present: [`write`](Self::write) and [`mark_present`](Self::mark_present) in one, during which none of
    /// the blocks is [punched](Self::punch).
    ///
    /// # Errors
    ///
    /// As these.
    pub fn fill(&self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        self.blocks.fill(offset, bytes)
    }

    /// Writes `bytes` at `offset`, which is a multiple of a block. What remains of the last block is
    /// written as zeros. No block becomes present by this: see [`mark_present`](Self::mark_present).
    ///
    /// Two threads may write the same blocks if both write the same bytes.
    ///
    /// # Errors
    ///
    /// [`WriteError::NoSpace`] leaves the device usable; [`WriteError::Failed`] poisons it.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        self.blocks.write(offset, bytes)
    }

    /// Says that the blocks that `range` (of bytes, beginning at a block) touches hold what they should.
    ///
    /// To be called when the data was verified and [written](Self::write), also if it was written
    /// through another descriptor of the same file. When this returns, the blocks are present, here and in
    /// any later process of the same boot.
    ///
    /// # Errors
    ///
    /// [`WriteError::NoSpace`] leaves the device usable, with some or none of the blocks present;
    /// [`WriteError::Failed`] poisons it.
    pub fn mark_present(&self, range: Range<u64>) -> Result<(), WriteError> {
        self.blocks.mark_present(range)
    }

    /// The bytes of all blocks that are present.
    #[must_use]
    pub fn bytes_present(&self) -> u64 {
        self.blocks.bytes_present()
    }

    /// The bytes of all blocks that will be present after a power cut too.
    #[must_use]
    pub fn bytes_durable(&self) -> u64 {
        self.blocks.bytes_durable()
    }

    /// Whether all blocks are present.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.bytes_present() == self.bytes()
    }

    /// Whether all blocks are present and durable.
    ///
    /// Only then is nothing left that a failing disk could take back: what makes readers wait for this
    /// device may be removed for good.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.bytes_durable() == self.bytes()
    }

    /// Makes durable all that is present at the time of the call. Cheap when nothing is new.
    ///
    /// # Errors
    ///
    /// [`WriteError::NoSpace`] when the map could not be written: the device stays usable. Any other
    /// failure poisons it: a second attempt would succeed and prove nothing.
    pub fn sync(&self) -> Result<(), WriteError> {
        self.blocks.sync()
    }

    /// Takes back these blocks (byte ranges of whole blocks) and gives back their space; the bytes of those
    /// that were present. First they are not present any more, here and durably, and then the holes are
    /// made: no crash shows zeros as present.
    ///
    /// Other blocks may be read and filled meanwhile. Who [fills](Self::fill) these waits, and has them
    /// present again afterwards. The caller sees to it that no mounted image refers to them, that nobody is
    /// between a [`write`](Self::write) and its mark, and that nobody is given their places as present ones.
    ///
    /// # Errors
    ///
    /// [`WriteError::OutOfRange`] for a range that is not of whole blocks of the device, before anything is
    /// done. [`WriteError::NoSpace`] when the map could not be written: some of the blocks are not present
    /// any more, and no hole was made. [`WriteError::NoHoles`] where the filesystem can't: the blocks are
    /// not present any more. In both cases the device stays usable and this may be tried again; any other
    /// failure poisons it.
    pub fn punch(&self, ranges: &[Range<u64>]) -> Result<u64, WriteError> {
        self.blocks.punch(ranges)
    }

    /// Whether the disk failed under this device. What is durable remains present and can be read;
    /// nothing more is taken until the store [forgets](crate::Store::forget) it and opens it again.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.blocks.is_poisoned()
    }

    /// As if the disk had failed.
    #[cfg(test)]
    pub(crate) fn poison_for_test(&self) {
        self.blocks.poison_for_test();
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("key", &self.key)
            .field("bytes", &self.bytes())
            .field("bytes_present", &self.bytes_present())
            .field("is_poisoned", &self.is_poisoned())
            .finish_non_exhaustive()
    }
}
