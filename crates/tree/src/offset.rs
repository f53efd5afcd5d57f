//! Offsets are types, so that a position in stored bytes is never taken for one in decoded bytes.

use std::fmt;

/// Bytes in a block of a device: the unit of placement and of presence.
pub const BLOCK_BYTES: u64 = 4096;

/// How many blocks `bytes` take.
#[must_use]
pub const fn blocks_of(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES)
}

macro_rules! offset {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl $name {
            /// The offset `bytes` further on, if it can be expressed.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }
        }
    };
}

offset!(
    /// A position, in bytes, in a blob as it is stored.
    BlobOffset
);
offset!(
    /// A position, in bytes, in the decoded content of an extent.
    ChunkOffset
);
offset!(
    /// A position, in bytes, in a file.
    FileOffset
);
offset!(
    /// A position, in bytes, in a device: a local file of decoded chunks.
    DeviceOffset
);
