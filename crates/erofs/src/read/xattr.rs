//! Extended attributes of an inode.

use draught_tree::Xattrs;
use zerocopy::FromBytes as _;

use crate::raw::{RawXattrEntry, RawXattrHeader, XATTR_PREFIXES};
use crate::read::error::ReadError;
use crate::read::image::{Image, Inode};

const UNIT_BYTES: usize = 4;

impl Image<'_> {
    /// The extended attributes of an inode, sorted by name.
    ///
    /// # Errors
    /// When they are malformed, of an unknown class, named twice, or kept in the area of shared ones.
    pub fn xattrs(&self, inode: &Inode) -> Result<Xattrs, ReadError> {
        if inode.xattr_bytes == 0 {
            return Ok(Xattrs::new());
        }
        let nid = inode.nid;
        let bad = |problem| ReadError::Inode { nid, problem };
        let bytes = self.slice("extended attributes", inode.xattr_offset, inode.xattr_bytes)?;
        let Ok((header, mut rest)) = RawXattrHeader::read_from_prefix(bytes) else {
            return Err(bad("extended attributes without a header"));
        };
        if header.shared_count != 0 {
            return Err(bad("shared extended attributes, which are not supported"));
        }
        let mut xattrs = Xattrs::new();
        while !rest.is_empty() {
            let Ok((entry, body)) = RawXattrEntry::read_from_prefix(rest) else {
                return Err(bad("an extended attribute that ends too early"));
            };
            let name_bytes = usize::from(entry.name_bytes);
            let value_bytes = usize::from(entry.value_bytes.get());
            let value = body.get(name_bytes..name_bytes + value_bytes);
            let (Some(name), Some(value)) = (body.get(..name_bytes), value) else {
                return Err(bad("an extended attribute that ends too early"));
            };
            let prefix = XATTR_PREFIXES
                .iter()
                .find(|(index, _)| *index == entry.name_index);
            let (_, prefix) = prefix.ok_or(bad("an extended attribute of an unknown class"))?;
            if name.contains(&0) {
                return Err(bad("an extended attribute with a zero in its name"));
            }
            xattrs.push(([prefix, name].concat().into(), value.into()));
            let whole = (name_bytes + value_bytes).next_multiple_of(UNIT_BYTES);
            rest = body.get(whole..).unwrap_or_default();
        }
        xattrs.sort();
        let twice = xattrs.windows(2).any(|pair| match pair {
            [(one, _), (other, _)] => one == other,
            _ => false,
        });
        if twice {
            return Err(bad("an extended attribute that is there twice"));
        }
        Ok(xattrs)
    }
}
