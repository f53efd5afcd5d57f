//! Why an image can't be written.

use std::io;

use crate::write::content::ContentError;

/// Why an image can't be written. Paths are shown with bytes that aren't UTF-8 replaced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A name is empty, or longer than EROFS and Linux have it.
    #[error("directory {path:?}: a name of {bytes} bytes, it must have 1 to 255")]
    Name {
        /// The directory's path.
        path: String,
        /// Length of the name.
        bytes: usize,
    },
    /// A symbolic link points to nothing, or to something longer than a path may be.
    #[error("symbolic link {path:?}: a target of {bytes} bytes, it must have 1 to 4095")]
    Symlink {
        /// The link's path.
        path: String,
        /// Length of the target.
        bytes: usize,
    },
    /// An extended attribute is longer than its field can say.
    #[error("{path:?}: extended attribute {name:?} does not fit: {what} has {bytes} bytes")]
    Xattr {
        /// The inode's path.
        path: String,
        /// The attribute's name.
        name: String,
        /// What doesn't fit.
        what: &'static str,
        /// How long it is.
        bytes: usize,
    },
    /// A device number is beyond 12 bits for the major and 20 for the minor.
    #[error("device node {path:?}: Linux has no device number {major}:{minor}")]
    DeviceNumber {
        /// The node's path.
        path: String,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// The content of a file can't be expressed.
    #[error("file {path:?}")]
    Content {
        /// The file's path.
        path: String,
        /// Why not.
        #[source]
        source: ContentError,
    },
    /// More devices than the superblock can count.
    #[error("{devices} devices, an image has {max} at most")]
    Devices {
        /// How many there are.
        devices: usize,
        /// How many there may be.
        max: usize,
    },
    /// The image, or the inodes in it, are beyond what 32-bit numbers express.
    #[error(
        "the image would have {bytes} bytes, more than its block and inode numbers can express"
    )]
    TooLarge {
        /// How large it would be.
        bytes: u64,
    },
    /// The bytes can't be written.
    #[error("the image can't be written out")]
    Output(#[source] io::Error),
}
