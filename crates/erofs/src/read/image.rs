//! Inodes, directories and chunk indexes of an image.

use std::borrow::Cow;

use zerocopy::FromBytes as _;

use crate::raw::{
    CHUNK_BITS_MASK, CHUNK_INDEXES, FORMAT_EXTENDED, FORMAT_LAYOUT_MASK, FORMAT_LAYOUT_SHIFT,
    LAYOUT_CHUNKED, LAYOUT_INLINE, LAYOUT_PLAIN, MODE_TYPE_MASK, RawChunkIndex, RawDirent,
    RawInodeCompact, RawInodeExtended,
};
use crate::read::error::ReadError;
use crate::superblock::Superblock;
use crate::write::ChunkIndex;
use crate::{BLOCK_BITS, BLOCK_BYTES, CHUNK_INDEX_BYTES, SLOT_BYTES};

const DIRENT_BYTES: usize = 12;
const _: () = assert!(size_of::<RawDirent>() == DIRENT_BYTES);
/// A block's length where slices are cut.
const BLOCK: usize = 4096;
const _: () = assert!(BLOCK as u64 == BLOCK_BYTES);

/// A range of the image.
pub(crate) fn slice<'a>(
    image: &'a [u8],
    what: &'static str,
    offset: u64,
    bytes: u64,
) -> Result<&'a [u8], ReadError> {
    let end = offset.checked_add(bytes);
    let range = usize::try_from(offset)
        .ok()
        .zip(end.and_then(|end| usize::try_from(end).ok()));
    let found = range.and_then(|(start, end)| image.get(start..end));
    found.ok_or(ReadError::Truncated { what, offset })
}

/// How the data of an inode lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// All of it in blocks.
    Plain,
    /// Whole blocks in blocks, the tail after the inode.
    Inline,
    /// In chunks of this size, whose indexes follow the inode.
    Chunks {
        /// Log2 of a chunk's bytes.
        bits: u32,
    },
}

/// An inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Its number.
    pub nid: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Size of its data in bytes.
    pub bytes: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds of it, below 1,000,000,000.
    pub mtime_nsec: u32,
    /// Number of names.
    pub links: u32,
    /// How its data lies.
    pub layout: Layout,
    /// The first block of its data, or its device number.
    pub union: u32,
    /// Where its attributes begin in the image, in bytes.
    pub(crate) xattr_offset: u64,
    /// Bytes of them.
    pub(crate) xattr_bytes: u64,
}

impl Inode {
    /// The bits of the mode that say the type.
    #[must_use]
    pub fn file_type(&self) -> u32 {
        self.mode & MODE_TYPE_MASK
    }

    /// Major and minor number, if it is a device node.
    #[must_use]
    pub fn device_number(&self) -> (u32, u32) {
        let major = self.union >> 8 & 0xFFF;
        let minor = self.union & 0xFF | self.union >> 12 & 0xF_FF00;
        (major, minor)
    }

    /// Where what follows inode and attributes begins, in bytes.
    fn after(&self) -> u64 {
        self.xattr_offset.saturating_add(self.xattr_bytes)
    }
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dirent<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The inode's number.
    pub nid: u64,
}

/// An image in memory. Nothing of it is trusted; every method checks what it reads.
#[derive(Debug, Clone)]
pub struct Image<'a> {
    bytes: &'a [u8],
    superblock: Superblock,
}

impl<'a> Image<'a> {
    /// Looks at the superblock.
    ///
    /// # Errors
    /// When it isn't an EROFS image, or of a kind that isn't known here.
    pub fn open(bytes: &'a [u8]) -> Result<Self, ReadError> {
        let superblock = Superblock::decode(bytes)?;
        Ok(Self { bytes, superblock })
    }

    /// What the superblock says.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// A range of the image.
    ///
    /// # Errors
    /// When the image ends before the range does; `what` is for the message.
    pub fn slice(
        &self,
        what: &'static str,
        offset: u64,
        bytes: u64,
    ) -> Result<&'a [u8], ReadError> {
        slice(self.bytes, what, offset, bytes)
    }

    /// The inode of that number.
    ///
    /// # Errors
    /// When there is none, or of a kind that isn't known here.
    pub fn inode(&self, nid: u64) -> Result<Inode, ReadError> {
        let base = u64::from(self.superblock.meta_block) * BLOCK_BYTES;
        let offset = nid
            .checked_mul(SLOT_BYTES)
            .and_then(|at| at.checked_add(base));
        let offset = offset.unwrap_or(u64::MAX);
        let head = slice(self.bytes, "inode", offset, SLOT_BYTES)?;
        let Ok(compact) = RawInodeCompact::read_from_bytes(head) else {
            return Err(ReadError::Truncated {
                what: "inode",
                offset,
            });
        };
        let format = compact.format.get();
        let mut inode = Inode {
            nid,
            mode: u32::from(compact.mode.get()),
            bytes: u64::from(compact.bytes.get()),
            uid: u32::from(compact.uid.get()),
            gid: u32::from(compact.gid.get()),
            mtime: i64::try_from(self.superblock.build_time).unwrap_or(i64::MAX),
            mtime_nsec: self.superblock.build_time_nsec,
            links: u32::from(compact.links.get()),
            layout: Layout::Plain,
            union: compact.union.get(),
            xattr_offset: offset + SLOT_BYTES,
            xattr_bytes: xattr_bytes(compact.xattr_count.get()),
        };
        if format & FORMAT_EXTENDED != 0 {
            let bytes = slice(self.bytes, "inode", offset, 2 * SLOT_BYTES)?;
            let Ok(raw) = RawInodeExtended::read_from_bytes(bytes) else {
                return Err(ReadError::Truncated {
                    what: "inode",
                    offset,
                });
            };
            inode.bytes = raw.bytes.get();
            inode.uid = raw.uid.get();
            inode.gid = raw.gid.get();
            inode.mtime = raw.mtime.get();
            inode.mtime_nsec = raw.mtime_nsec.get();
            inode.links = raw.links.get();
            inode.xattr_offset = offset + 2 * SLOT_BYTES;
        }
        inode.layout = layout(&inode, format)?;
        if inode.mtime_nsec >= 1_000_000_000 {
            let problem = "a time of more than 999,999,999 nanoseconds";
            return Err(ReadError::Inode { nid, problem });
        }
        Ok(inode)
    }

    /// The data of a directory or symbolic link, `bytes_max` at most.
    ///
    /// # Errors
    /// When the image doesn't hold it, or it is longer.
    pub fn data(&self, inode: &Inode, bytes_max: u64) -> Result<Cow<'a, [u8]>, ReadError> {
        if inode.bytes > bytes_max {
            return Err(ReadError::Limit {
                what: "bytes in a directory or symbolic link",
                limit: bytes_max,
            });
        }
        let start = u64::from(inode.union) * BLOCK_BYTES;
        let tail_bytes = inode.bytes % BLOCK_BYTES;
        match inode.layout {
            Layout::Plain if inode.bytes == 0 => Ok(Cow::Borrowed(&[])),
            Layout::Plain => slice(self.bytes, "data", start, inode.bytes).map(Cow::Borrowed),
            Layout::Inline => {
                let tail = slice(self.bytes, "inline data", inode.after(), tail_bytes)?;
                if tail_bytes == inode.bytes {
                    return Ok(Cow::Borrowed(tail));
                }
                let blocks = slice(self.bytes, "data", start, inode.bytes - tail_bytes)?;
                Ok(Cow::Owned([blocks, tail].concat()))
            }
            Layout::Chunks { .. } => Err(ReadError::Inode {
                nid: inode.nid,
                problem: "chunks where data was expected",
            }),
        }
    }

    /// The first `count` chunk indexes of a file.
    ///
    /// # Errors
    /// When the file isn't in chunks, or the image ends before them.
    pub fn chunk_indexes(
        &self,
        inode: &Inode,
        count: u64,
    ) -> Result<impl ExactSizeIterator<Item = ChunkIndex> + use<'a>, ReadError> {
        let Layout::Chunks { .. } = inode.layout else {
            return Err(ReadError::Inode {
                nid: inode.nid,
                problem: "no chunks where chunks were expected",
            });
        };
        let offset = inode.after().next_multiple_of(CHUNK_INDEX_BYTES);
        let bytes = count.saturating_mul(CHUNK_INDEX_BYTES);
        let bytes = slice(self.bytes, "chunk indexes", offset, bytes)?;
        let raw = <[RawChunkIndex]>::ref_from_bytes(bytes).unwrap_or_default();
        Ok(raw.iter().map(ChunkIndex::from_raw))
    }
}

/// Calls `each` with every entry of a directory's data, `.` and `..` included.
pub(crate) fn dirents<'d>(
    nid: u64,
    data: &'d [u8],
    mut each: impl FnMut(Dirent<'d>) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let bad = |problem| ReadError::Inode { nid, problem };
    for block in data.chunks(BLOCK) {
        let parse = |at: usize| {
            let bytes = block.get(at * DIRENT_BYTES..)?;
            RawDirent::read_from_prefix(bytes).ok().map(|(raw, _)| raw)
        };
        let first = parse(0).ok_or(bad("a directory block without entries"))?;
        let names = usize::from(first.name_offset.get());
        if names == 0 || names % DIRENT_BYTES != 0 || names > block.len() {
            return Err(bad(
                "a directory block whose names begin inside of its entries",
            ));
        }
        let count = names / DIRENT_BYTES;
        let mut entry = first;
        for at in 0..count {
            let next = if at + 1 < count { parse(at + 1) } else { None };
            let start = usize::from(entry.name_offset.get());
            let end = next
                .as_ref()
                .map(|next| usize::from(next.name_offset.get()));
            let name = block.get(start..end.unwrap_or(block.len()));
            let mut name = name.ok_or(bad("a name outside of its directory block"))?;
            if end.is_none() {
                // The last name of a block that isn't full ends with a zero.
                let len = name.iter().position(|byte| *byte == 0);
                name = name.get(..len.unwrap_or(name.len())).unwrap_or(name);
            }
            let nid = entry.nid.get();
            each(Dirent { name, nid })?;
            match next {
                Some(next) => entry = next,
                None => break,
            }
        }
    }
    Ok(())
}

/// Bytes of the attributes that the count in an inode stands for.
fn xattr_bytes(count: u16) -> u64 {
    const HEADER_BYTES: u64 = 12;
    const UNIT_BYTES: u64 = 4;
    match u64::from(count) {
        0 => 0,
        count => HEADER_BYTES + (count - 1) * UNIT_BYTES,
    }
}

fn layout(inode: &Inode, format: u16) -> Result<Layout, ReadError> {
    let unsupported = ReadError::Format {
        nid: inode.nid,
        format,
        mode: inode.mode,
    };
    let known = FORMAT_EXTENDED | FORMAT_LAYOUT_MASK << FORMAT_LAYOUT_SHIFT;
    if format & !known != 0 {
        return Err(unsupported);
    }
    match format >> FORMAT_LAYOUT_SHIFT & FORMAT_LAYOUT_MASK {
        LAYOUT_PLAIN => Ok(Layout::Plain),
        LAYOUT_INLINE => Ok(Layout::Inline),
        LAYOUT_CHUNKED => {
            let bits = inode.union & CHUNK_BITS_MASK;
            // Whatever else is set is not known here; block addresses of 4 bytes aren't either.
            if inode.union != bits | CHUNK_INDEXES {
                return Err(unsupported);
            }
            let bits = BLOCK_BITS + bits;
            Ok(Layout::Chunks { bits })
        }
        _ => Err(unsupported),
    }
}
