//! Inline extended attributes.

use draught_tree::Xattrs;
use zerocopy::IntoBytes as _;

use crate::raw::{RawXattrEntry, RawXattrHeader, XATTR_PREFIXES};

/// Attributes are counted in units of these bytes, beyond the header.
const UNIT_BYTES: usize = 4;

/// Why an attribute does not fit: (its index in the list, what, bytes).
pub(crate) type Misfit = (usize, &'static str, usize);

/// The encoded attributes of an inode.
#[derive(Debug, Default)]
pub(crate) struct EncodedXattrs {
    /// The bytes that follow the inode.
    pub(crate) bytes: Vec<u8>,
    /// The inode's count of them.
    pub(crate) count: u16,
    /// How many have a name that the kernel would not show.
    pub(crate) left_out: u64,
}

/// Splits a name into the number of its prefix and the rest.
fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    XATTR_PREFIXES.iter().find_map(|(index, prefix)| {
        let rest = name.strip_prefix(*prefix)?;
        // Prefixes with a dot stand for a class and need a rest, the others are whole names.
        let fits = prefix.ends_with(b".") != rest.is_empty();
        fits.then_some((*index, rest))
    })
}

impl EncodedXattrs {
    pub(crate) fn encode(&mut self, xattrs: &Xattrs) -> Result<(), Misfit> {
        self.bytes.clear();
        self.count = 0;
        self.left_out = 0;
        for (at, (name, value)) in xattrs.iter().enumerate() {
            let Some((name_index, rest)) = split(name) else {
                self.left_out += 1;
                continue;
            };
            if self.bytes.is_empty() {
                self.bytes
                    .extend_from_slice(&[0; size_of::<RawXattrHeader>()]);
            }
            let name_bytes = u8::try_from(rest.len()).map_err(|_| (at, "its name", name.len()))?;
            let value_bytes =
                u16::try_from(value.len()).map_err(|_| (at, "its value", value.len()))?;
            let entry = RawXattrEntry {
                name_bytes,
                name_index,
                value_bytes: value_bytes.into(),
            };
            self.bytes.extend_from_slice(entry.as_bytes());
            self.bytes.extend_from_slice(rest);
            self.bytes.extend_from_slice(value);
            self.bytes
                .resize(self.bytes.len().next_multiple_of(UNIT_BYTES), 0);
            let units = (self.bytes.len() - size_of::<RawXattrHeader>()) / UNIT_BYTES + 1;
            self.count =
                u16::try_from(units).map_err(|_| (at, "the whole list", self.bytes.len()))?;
        }
        Ok(())
    }
}
