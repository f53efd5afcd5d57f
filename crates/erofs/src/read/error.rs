//! Why an image can't be read.

use draught_tree::ApplyError;

/// Why an image can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The image ends before something that it names.
    #[error("the image ends before the end of the {what} at byte {offset}")]
    Truncated {
        /// What was to be read.
        what: &'static str,
        /// Where it would begin.
        offset: u64,
    },
    /// There is no EROFS superblock.
    #[error("no EROFS superblock: its magic is {found:#x}")]
    Magic {
        /// What stands in its place.
        found: u32,
    },
    /// The superblock's checksum is wrong.
    #[error("the superblock's checksum is {computed:#x}, it says {stated:#x}")]
    Checksum {
        /// What it says.
        stated: u32,
        /// What it is.
        computed: u32,
    },
    /// Blocks of another size than 4096.
    #[error("blocks of 2^{bits} bytes are not supported, only of 4096")]
    BlockSize {
        /// Log2 of the size.
        bits: u8,
    },
    /// The image needs features that are not known here.
    #[error("unsupported incompatible features {bits:#x}")]
    Feature {
        /// The bits that are not known.
        bits: u32,
    },
    /// An inode has a layout that is not known here, or that its type can't have.
    #[error("inode {nid}: unsupported format {format:#x} for mode {mode:#o}")]
    Format {
        /// The inode's number.
        nid: u64,
        /// Its format field.
        format: u16,
        /// Its type and permissions.
        mode: u32,
    },
    /// A field of an inode, or of what belongs to it, has a value that can't be.
    #[error("inode {nid}: {problem}")]
    Inode {
        /// The inode's number.
        nid: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// More of something than the limits allow.
    #[error("more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: u64,
    },
    /// A name or inode can't be part of a tree.
    #[error("inode {nid} can't be part of a tree")]
    Apply {
        /// The inode's number.
        nid: u64,
        /// Why not.
        #[source]
        source: ApplyError,
    },
}
