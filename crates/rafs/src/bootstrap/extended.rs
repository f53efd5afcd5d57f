//! The extended superblock.

use draught_digest::Algorithm;
use draught_tree::Compression;
use zerocopy::{FromBytes as _, FromZeros as _};

use crate::bootstrap::raw::RawExtended;
use crate::bootstrap::read::ReadError;
use crate::bootstrap::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN};

const COMPRESSION_NONE: u64 = 0x1;
const COMPRESSION_LZ4: u64 = 0x2;
const HASH_BLAKE3: u64 = 0x4;
const HASH_SHA256: u64 = 0x8;
const EXPLICIT_OWNERS: u64 = 0x10;
const HAS_XATTRS: u64 = 0x20;
const COMPRESSION_GZIP: u64 = 0x40;
const COMPRESSION_ZSTD: u64 = 0x80;
const INLINED_CHUNK_DIGEST: u64 = 0x100;
const TARFS: u64 = 0x200;
const ENCRYPTION_NONE: u64 = 0x0100_0000;
const ENCRYPTION_AES_128_XTS: u64 = 0x0200_0000;
/// Bits that nydus keeps for changes which old readers may ignore.
const COMPATIBLE: u64 = 0xFC00_0000;
const KNOWN: u64 = 0x3FF | ENCRYPTION_NONE | ENCRYPTION_AES_128_XTS | COMPATIBLE;

/// A table in a bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Table {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// What the extended superblock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extended {
    pub(crate) compression: Compression,
    pub(crate) digester: Algorithm,
    pub(crate) has_xattrs: bool,
    pub(crate) inlined_chunk_digest: bool,
    pub(crate) chunk_bytes: u32,
    pub(crate) blobs: Table,
    pub(crate) chunks: Table,
    pub(crate) prefetch: Table,
}

impl Extended {
    pub(crate) fn encode(&self) -> [u8; 256] {
        let compression = match self.compression {
            Compression::None => COMPRESSION_NONE,
            Compression::Lz4Block => COMPRESSION_LZ4,
            Compression::Gzip => COMPRESSION_GZIP,
            Compression::Zstd => COMPRESSION_ZSTD,
        };
        let digester = match self.digester {
            Algorithm::Blake3 => HASH_BLAKE3,
            Algorithm::Sha256 => HASH_SHA256,
        };
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        let flags = compression
            | digester
            | EXPLICIT_OWNERS
            | ENCRYPTION_NONE
            | flag(self.has_xattrs, HAS_XATTRS)
            | flag(self.inlined_chunk_digest, INLINED_CHUNK_DIGEST);
        let mut raw = RawExtended::new_zeroed();
        raw.flags = flags.into();
        raw.blob_table_offset = self.blobs.offset.into();
        raw.blob_table_bytes = u32::try_from(self.blobs.bytes).unwrap_or(u32::MAX).into();
        raw.chunk_bytes = self.chunk_bytes.into();
        raw.chunk_table_offset = self.chunks.offset.into();
        raw.chunk_table_bytes = self.chunks.bytes.into();
        raw.prefetch_table_offset = self.prefetch.offset.into();
        raw.prefetch_table_bytes = u32::try_from(self.prefetch.bytes)
            .unwrap_or(u32::MAX)
            .into();
        zerocopy::transmute!(raw)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ReadError> {
        let bad = |problem| ReadError::Superblock { problem };
        let Ok(raw) = RawExtended::read_from_bytes(bytes) else {
            return Err(bad("the extended superblock is cut off"));
        };
        let flags = raw.flags.get();
        if flags & !KNOWN != 0 {
            return Err(ReadError::Flags {
                bits: flags & !KNOWN,
            });
        }
        for (bit, what) in [
            (TARFS, "tarfs (an unmodified tar archive as the blob)"),
            (ENCRYPTION_AES_128_XTS, "encryption"),
        ] {
            if flags & bit != 0 {
                return Err(ReadError::Unsupported { what });
            }
        }
        let all = COMPRESSION_NONE | COMPRESSION_LZ4 | COMPRESSION_GZIP | COMPRESSION_ZSTD;
        let compression = match flags & all {
            COMPRESSION_NONE => Compression::None,
            COMPRESSION_LZ4 => Compression::Lz4Block,
            COMPRESSION_GZIP => Compression::Gzip,
            COMPRESSION_ZSTD => Compression::Zstd,
            _ => return Err(bad("it names no compressor, or several")),
        };
        let digester = match flags & (HASH_BLAKE3 | HASH_SHA256) {
            HASH_BLAKE3 => Algorithm::Blake3,
            HASH_SHA256 => Algorithm::Sha256,
            _ => return Err(bad("it names no digest algorithm, or several")),
        };
        let chunk_bytes = raw.chunk_bytes.get();
        let range = CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX;
        if !chunk_bytes.is_power_of_two() || !range.contains(&chunk_bytes) {
            return Err(bad(
                "its chunk size is no power of two from 4 KiB to 16 MiB",
            ));
        }
        Ok(Self {
            compression,
            digester,
            has_xattrs: flags & HAS_XATTRS != 0,
            inlined_chunk_digest: flags & INLINED_CHUNK_DIGEST != 0,
            chunk_bytes,
            blobs: Table {
                offset: raw.blob_table_offset.get(),
                bytes: raw.blob_table_bytes.get().into(),
            },
            chunks: Table {
                offset: raw.chunk_table_offset.get(),
                bytes: raw.chunk_table_bytes.get(),
            },
            prefetch: Table {
                offset: raw.prefetch_table_offset.get(),
                bytes: raw.prefetch_table_bytes.get().into(),
            },
        })
    }
}
