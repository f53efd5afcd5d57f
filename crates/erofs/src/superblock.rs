//! The superblock and the device table.

use zerocopy::{FromBytes as _, FromZeros as _};

use crate::raw::{
    COMPAT_CHECKSUM, INCOMPAT_CHUNKED_FILE, INCOMPAT_DEVICE_TABLE, MAGIC, RawDeviceSlot,
    RawSuperblock,
};
use crate::read::ReadError;
use crate::{BLOCK_BITS, BLOCK_BYTES, DEVICE_SLOT_BYTES, SUPERBLOCK_OFFSET};

/// Bytes of a device's tag.
pub const TAG_BYTES: usize = 64;

/// What the superblock says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Superblock {
    /// Bits of features that a reader may ignore.
    pub feature_compat: u32,
    /// The root directory's inode number.
    pub root_nid: u16,
    /// Inodes in the image.
    pub inodes: u64,
    /// The time of inodes of the compact kind, in seconds since 1970.
    pub build_time: u64,
    /// Nanoseconds of it.
    pub build_time_nsec: u32,
    /// Blocks of the image, for statfs.
    pub blocks: u32,
    /// The block from which inode numbers count.
    pub meta_block: u32,
    /// The block of shared extended attributes; 0 when there are none.
    pub xattr_block: u32,
    /// The volume's UUID.
    pub uuid: [u8; 16],
    /// The volume's name, filled up with zeros.
    pub volume_name: [u8; 16],
    /// Bits of features that a reader must know: [`Self::INCOMPAT_MAX`] at most.
    pub feature_incompat: u32,
    /// Extra devices.
    pub extra_devices: u16,
    /// Where the device table begins, in units of [`DEVICE_SLOT_BYTES`].
    pub device_slot: u16,
}

impl Superblock {
    /// All incompatible features that are known here: chunk-based files and a device table.
    pub const INCOMPAT_MAX: u32 = INCOMPAT_CHUNKED_FILE | INCOMPAT_DEVICE_TABLE;
    /// The incompatible feature of chunk-based files.
    pub const INCOMPAT_CHUNKED_FILE: u32 = INCOMPAT_CHUNKED_FILE;

    /// The 128 bytes on disk. The checksum is zero; [`crate::write()`] sets it.
    #[must_use]
    pub fn encode(&self) -> [u8; 128] {
        let raw = RawSuperblock {
            magic: MAGIC.into(),
            checksum: 0.into(),
            feature_compat: self.feature_compat.into(),
            block_bits: 12,
            ext_slots: 0,
            root_nid: self.root_nid.into(),
            inodes: self.inodes.into(),
            build_time: self.build_time.into(),
            build_time_nsec: self.build_time_nsec.into(),
            blocks: self.blocks.into(),
            meta_block: self.meta_block.into(),
            xattr_block: self.xattr_block.into(),
            uuid: self.uuid,
            volume_name: self.volume_name,
            feature_incompat: self.feature_incompat.into(),
            compression: 0.into(),
            extra_devices: self.extra_devices.into(),
            device_slot: self.device_slot.into(),
            reserved: [0; 38],
        };
        zerocopy::transmute!(raw)
    }

    /// Reads the superblock of an image; its checksum is verified when it has one.
    ///
    /// # Errors
    /// When it isn't one, or of a kind that isn't known here.
    pub fn decode(image: &[u8]) -> Result<Self, ReadError> {
        let truncated = ReadError::Truncated {
            what: "superblock",
            offset: SUPERBLOCK_OFFSET,
        };
        let offset = usize::try_from(SUPERBLOCK_OFFSET).unwrap_or(usize::MAX);
        let block_bytes = usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX);
        let block = image.get(offset..block_bytes).ok_or(truncated)?;
        let Ok((raw, _)) = RawSuperblock::read_from_prefix(block) else {
            return Err(ReadError::Truncated {
                what: "superblock",
                offset: SUPERBLOCK_OFFSET,
            });
        };
        if raw.magic.get() != MAGIC {
            return Err(ReadError::Magic {
                found: raw.magic.get(),
            });
        }
        if u32::from(raw.block_bits) != BLOCK_BITS {
            return Err(ReadError::BlockSize {
                bits: raw.block_bits,
            });
        }
        let unknown = raw.feature_incompat.get() & !Self::INCOMPAT_MAX;
        if unknown != 0 || raw.ext_slots != 0 || raw.compression.get() != 0 {
            return Err(ReadError::Feature { bits: unknown });
        }
        if raw.feature_compat.get() & COMPAT_CHECKSUM != 0 {
            verify_checksum(block, raw.checksum.get())?;
        }
        Ok(Self {
            feature_compat: raw.feature_compat.get(),
            root_nid: raw.root_nid.get(),
            inodes: raw.inodes.get(),
            build_time: raw.build_time.get(),
            build_time_nsec: raw.build_time_nsec.get(),
            blocks: raw.blocks.get(),
            meta_block: raw.meta_block.get(),
            xattr_block: raw.xattr_block.get(),
            uuid: raw.uuid,
            volume_name: raw.volume_name,
            feature_incompat: raw.feature_incompat.get(),
            extra_devices: raw.extra_devices.get(),
            device_slot: raw.device_slot.get(),
        })
    }
}

/// Where in the superblock its checksum stands.
const CHECKSUM_OFFSET: usize = 4;
const CHECKSUM_BYTES: usize = 4;

/// Sets the checksum of a first block, which says so in its features.
pub(crate) fn set_checksum(first_block: &mut [u8]) {
    let offset = usize::try_from(SUPERBLOCK_OFFSET).unwrap_or(usize::MAX);
    let Some(rest) = first_block.get_mut(offset..) else {
        return;
    };
    let checksum = crate::checksum::crc32c(rest).to_le_bytes();
    if let Some(field) = rest.get_mut(CHECKSUM_OFFSET..CHECKSUM_OFFSET + CHECKSUM_BYTES) {
        field.copy_from_slice(&checksum);
    }
}

fn verify_checksum(block: &[u8], stated: u32) -> Result<(), ReadError> {
    let mut copy = block.to_vec();
    if let Some(field) = copy.get_mut(CHECKSUM_OFFSET..CHECKSUM_OFFSET + CHECKSUM_BYTES) {
        field.fill(0);
    }
    let computed = crate::checksum::crc32c(&copy);
    if computed == stated {
        Ok(())
    } else {
        Err(ReadError::Checksum { stated, computed })
    }
}

/// A slot of the device table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSlot {
    /// What names the device, filled up with zeros.
    pub tag: [u8; TAG_BYTES],
    /// Blocks on the device.
    pub blocks: u32,
    /// Where in one flat address space the device lies, in blocks; 0 when it isn't part of one.
    pub mapped_block: u32,
}

impl DeviceSlot {
    /// The 128 bytes on disk.
    #[must_use]
    pub fn encode(&self) -> [u8; 128] {
        let mut raw = RawDeviceSlot::new_zeroed();
        raw.tag = self.tag;
        raw.blocks = self.blocks.into();
        raw.mapped_block = self.mapped_block.into();
        zerocopy::transmute!(raw)
    }

    /// Reads all slots of an image's device table.
    ///
    /// # Errors
    /// When the image ends before the table.
    pub fn decode_table(image: &[u8], superblock: &Superblock) -> Result<Vec<Self>, ReadError> {
        let offset = u64::from(superblock.device_slot) * DEVICE_SLOT_BYTES;
        let bytes = u64::from(superblock.extra_devices) * DEVICE_SLOT_BYTES;
        let table = crate::read::slice(image, "device table", offset, bytes)?;
        let slots = table.chunks_exact(size_of::<RawDeviceSlot>());
        let slots = slots.filter_map(|bytes| RawDeviceSlot::read_from_bytes(bytes).ok());
        Ok(slots
            .map(|raw| Self {
                tag: raw.tag,
                blocks: raw.blocks.get(),
                mapped_block: raw.mapped_block.get(),
            })
            .collect())
    }
}
