//! Directories: sorted names, packed into blocks.

use zerocopy::IntoBytes as _;

use crate::BLOCK_BYTES;
use crate::raw::RawDirent;

const BLOCK: usize = 4096;
const _: () = assert!(BLOCK as u64 == BLOCK_BYTES);

/// A directory's entries while they are put together.
#[derive(Debug, Default)]
pub(crate) struct Directory<'a> {
    /// Name, inode number, file type.
    pub(crate) entries: Vec<(&'a [u8], u64, u8)>,
}

impl Directory<'_> {
    /// The directory's data: blocks of entries followed by their names. All but the last are
    /// filled up with zeros. Entries are sorted, as the kernel's binary search needs them.
    pub(crate) fn pack(&self, out: &mut Vec<u8>) {
        out.clear();
        let mut rest = &*self.entries;
        while !rest.is_empty() {
            let mut used = 0;
            let fitting = rest.iter().take_while(|(name, _, _)| {
                used += size_of::<RawDirent>() + name.len();
                used <= BLOCK
            });
            // Names have 255 bytes at most, so at least one fits.
            let count = fitting.count().max(1);
            let (block, later) = rest.split_at(count);
            out.resize(out.len().next_multiple_of(BLOCK), 0);
            pack_block(block, out);
            rest = later;
        }
    }
}

fn pack_block(entries: &[(&[u8], u64, u8)], out: &mut Vec<u8>) {
    let mut name_offset = entries.len() * size_of::<RawDirent>();
    for (name, nid, file_type) in entries {
        let raw = RawDirent {
            nid: (*nid).into(),
            name_offset: u16::try_from(name_offset).unwrap_or(u16::MAX).into(),
            file_type: *file_type,
            reserved: 0,
        };
        out.extend_from_slice(raw.as_bytes());
        name_offset += name.len();
    }
    for (name, _, _) in entries {
        out.extend_from_slice(name);
    }
}
