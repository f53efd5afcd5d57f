//! What a blob is said to have, in the blob table and in its own header.

/// Bits that say what a blob has. A set, not an enum: most combinations exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlobFeatures(u32);

impl BlobFeatures {
    /// Chunks are placed at multiples of 4 KiB.
    pub const ALIGNED: Self = Self(0x0000_0001);
    /// The blob holds a bootstrap of its layer.
    pub const INLINED_FS_META: Self = Self(0x0000_0002);
    /// Chunk-info entries have 24 bytes instead of 16.
    pub const CHUNK_INFO_V2: Self = Self(0x0000_0004);
    /// Chunks lie in an unmodified gzip layer, together with decoder states.
    pub const ZRAN: Self = Self(0x0000_0008);
    /// Data and tables are different blobs.
    pub const SEPARATE: Self = Self(0x0000_0010);
    /// The blob holds its chunks' digests.
    pub const INLINED_CHUNK_DIGEST: Self = Self(0x0000_0020);
    /// The blob is a tar archive, its files are aligned to 512 bytes.
    pub const TARFS: Self = Self(0x0000_0040);
    /// Some extents hold several chunks.
    pub const BATCH: Self = Self(0x0000_0080);
    /// The blob is encrypted.
    pub const ENCRYPTED: Self = Self(0x0000_0100);
    /// The blob's table counts chunks of a dictionary too.
    pub const CHUNKDICT_GENERATED: Self = Self(0x0000_0200);
    /// Prefetched files are in a blob of their own.
    pub const SEPARATED_PREFETCH: Self = Self(0x0000_0400);
    /// The blob is kept somewhere outside of the image.
    pub const EXTERNAL: Self = Self(0x0000_0800);
    /// Tar headers separate the blob's parts.
    pub const HAS_TAR_HEADER: Self = Self(0x1000_0000);
    /// The blob ends in a table of contents.
    pub const HAS_TOC: Self = Self(0x2000_0000);
    /// Written by nydus 2.2 or later.
    pub const CAP_TAR_TOC: Self = Self(0x4000_0000);

    /// The bits that a reader must know.
    const INCOMPATIBLE: u32 = 0x0000_ffff;

    /// Names of the features that we do not read.
    const UNSUPPORTED: [(Self, &'static str); 6] = [
        (
            Self::ZRAN,
            "zran (chunks inside of an unmodified gzip layer)",
        ),
        (Self::SEPARATE, "separate (tables in another blob)"),
        (Self::TARFS, "tarfs (an unmodified tar archive as the blob)"),
        (Self::ENCRYPTED, "encrypted"),
        (Self::SEPARATED_PREFETCH, "separated prefetch files"),
        (Self::EXTERNAL, "external (a blob outside of the image)"),
    ];

    /// The set with these bits, whatever they mean.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Checks that a blob with these features can be read here.
    ///
    /// # Errors
    /// [`UnsupportedFeatures`] names what can't.
    pub fn check_supported(self) -> Result<(), UnsupportedFeatures> {
        let mut names = Vec::new();
        let mut unknown = self.0 & Self::INCOMPATIBLE;
        for (feature, name) in Self::UNSUPPORTED {
            if self.contains(feature) {
                names.push(name);
            }
            unknown &= !feature.0;
        }
        let known = Self::ALIGNED.0
            | Self::INLINED_FS_META.0
            | Self::CHUNK_INFO_V2.0
            | Self::INLINED_CHUNK_DIGEST.0
            | Self::BATCH.0
            | Self::CHUNKDICT_GENERATED.0;
        unknown &= !known;
        if names.is_empty() && unknown == 0 {
            return Ok(());
        }
        Err(UnsupportedFeatures { names, unknown })
    }
}

/// A blob has features that we do not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the blob has features that are not supported: {}{}{}",
    names.join(", "),
    if names.is_empty() || *unknown == 0 { "" } else { " and " },
    if *unknown == 0 { String::new() } else { format!("unknown bits {unknown:#x}") }
)]
pub struct UnsupportedFeatures {
    /// What we know by name.
    pub names: Vec<&'static str>,
    /// Incompatible bits that nobody told us of.
    pub unknown: u32,
}
