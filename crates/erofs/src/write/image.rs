//! A whole image.

use std::io;

use draught_tree::Tree;

use crate::raw::COMPAT_CHECKSUM;
use crate::superblock::{DeviceSlot, Superblock, set_checksum};
use crate::write::error::WriteError;
use crate::write::placement::{Placed, Placement};
use crate::write::plan::Plan;
use crate::{BLOCK_BYTES, DEVICE_SLOT_BYTES, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET};

/// What an image says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// The volume's UUID; tools show it.
    pub uuid: [u8; 16],
    /// The volume's name, filled up with zeros; tools show it.
    pub volume_name: [u8; 16],
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the image, a multiple of a block.
    pub bytes: u64,
    /// Inodes in it.
    pub inodes: u64,
    /// Extended attributes that were left out: their names begin with none of `user.`, `trusted.`, `security.`
    /// and are no POSIX ACL, so the kernel would not show them.
    pub xattrs_left_out: u64,
}

/// Writes the metadata image of a tree: mount it with one `device=` for each of the placement's devices,
/// in order.
///
/// # Errors
/// When the tree can't be expressed, a chunk of it has no place, or `out` can't take the bytes.
pub fn write(
    tree: &Tree,
    placement: &Placement,
    options: &Options,
    out: &mut impl io::Write,
) -> Result<Summary, WriteError> {
    let devices = placement.devices.len();
    let extra_devices = u16::try_from(devices).map_err(|_| WriteError::Devices {
        devices,
        max: usize::from(u16::MAX),
    })?;
    let slot_offset = SUPERBLOCK_OFFSET + SUPERBLOCK_BYTES;
    let front_bytes = slot_offset + u64::from(extra_devices) * DEVICE_SLOT_BYTES;
    let content = Placed {
        map: &tree.map,
        placement,
    };
    let plan = Plan::new(tree, &content, front_bytes)?;
    let superblock = Superblock {
        feature_compat: COMPAT_CHECKSUM,
        root_nid: plan.root_nid(),
        inodes: plan.inodes(),
        blocks: u32::try_from(plan.end() / BLOCK_BYTES).unwrap_or(u32::MAX),
        meta_block: plan.meta_block(),
        uuid: options.uuid,
        volume_name: options.volume_name,
        feature_incompat: if devices == 0 {
            Superblock::INCOMPAT_CHUNKED_FILE
        } else {
            Superblock::INCOMPAT_MAX
        },
        extra_devices,
        device_slot: u16::try_from(slot_offset / DEVICE_SLOT_BYTES).unwrap_or(0),
        ..Superblock::default()
    };
    let mut front = vec![0; usize::try_from(SUPERBLOCK_OFFSET).unwrap_or(0)];
    front.extend_from_slice(&superblock.encode());
    for device in &placement.devices {
        let slot = DeviceSlot {
            tag: device.tag,
            blocks: device.blocks,
            mapped_block: 0,
        };
        front.extend_from_slice(&slot.encode());
    }
    front.resize(usize::try_from(plan.start()).unwrap_or(front.len()), 0);
    let first_block = usize::try_from(BLOCK_BYTES).unwrap_or(front.len());
    set_checksum(front.get_mut(..first_block).unwrap_or_default());
    out.write_all(&front).map_err(WriteError::Output)?;
    plan.write(out)?;
    Ok(Summary {
        bytes: plan.end(),
        inodes: plan.inodes(),
        xattrs_left_out: plan.xattrs_left_out(),
    })
}
