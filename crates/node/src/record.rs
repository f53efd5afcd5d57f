//! What is kept of an attached image, so that a worker can serve it, and the next attach can use it,
//! without asking anybody.
//!
//! Files in the image's directory of the store:
//!
//! * `image.json`: the devices and blobs of the image.
//! * `N.feed`: the extents of blob N and which place on which device each of their chunks has: a header of
//!   32 bytes, 24 bytes an extent, 48 bytes a chunk, all little endian, and a BLAKE3 of all that.
//! * `meta.erofs`: what the kernel mounts.
//! * `use.json`: by which names the image was asked for, and when last.
//! * `touches`: see [`crate::touches`].
//!
//! They are written without waiting for the disk. One that a power cut tore fails its check, and the image
//! is then attached anew.

use std::collections::BTreeSet;
use std::io;

use draught_digest::{Algorithm, DIGEST_BYTES, Digest};
use draught_fill::{FeedChunk, FeedExtent, FeedMap};
use draught_tree::Compression;
use serde::{Deserialize, Serialize};

use crate::handover::Key;

/// The version that is written.
pub(crate) const VERSION: u32 = 2;
/// First bytes of a feed's file.
const MAGIC: &[u8; 8] = b"DRGHTFD2";
/// Devices of one image, at most: a place's low bits hold the device's number in a feed's file, beside one
/// that tells the digest's algorithm.
pub(crate) const DEVICES_MAX: usize = 1 << 11;
/// The metadata image among an image's files.
pub(crate) const METADATA: &str = "meta.erofs";
/// The record among an image's files.
pub(crate) const RECORD: &str = "image.json";
/// How the image is used, among its files.
pub(crate) const USE: &str = "use.json";

/// An attached image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageRecord {
    pub(crate) version: u32,
    /// Digest of the manifest that was attached.
    pub(crate) digest: String,
    /// BLAKE3 of the metadata image.
    pub(crate) metadata: String,
    /// The devices in the order of the metadata image's device table.
    pub(crate) devices: Vec<DeviceRecord>,
    /// How many of them, from the first, other images brought.
    pub(crate) devices_shared: usize,
    /// The blobs, in the order of the feeds' files.
    pub(crate) blobs: Vec<BlobRecord>,
    /// Bytes of all its different chunks, in whole blocks.
    pub(crate) bytes_total: u64,
    /// How many of them the store knew when the image was attached.
    pub(crate) bytes_shared: u64,
    /// When it was attached, in seconds since 1970.
    pub(crate) created: u64,
}

/// One device of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceRecord {
    /// The key of the device in the store: 64 hexadecimal digits.
    pub(crate) key: String,
    /// Size of the device in bytes.
    pub(crate) bytes: u64,
}

/// One blob of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlobRecord {
    /// Its digest.
    pub(crate) digest: String,
    /// Its stored bytes.
    pub(crate) stored_bytes: u64,
}

/// How an image is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UseRecord {
    /// The names by which it was asked for.
    pub(crate) references: BTreeSet<String>,
    /// When it was last mounted or unmounted, in seconds since 1970.
    pub(crate) last_used: u64,
}

impl DeviceRecord {
    /// The key as bytes.
    pub(crate) fn key(&self) -> io::Result<Key> {
        let digest: Digest = format!("sha256:{}", self.key)
            .parse()
            .map_err(|_| invalid("the image's record names a key that is none"))?;
        Ok(*digest.as_bytes())
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

impl ImageRecord {
    pub(crate) fn encode(&self) -> io::Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(io::Error::other)
    }

    pub(crate) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let record: Self = serde_json::from_slice(bytes).map_err(io::Error::other)?;
        if record.version != VERSION {
            return Err(invalid("the image's record is of another version"));
        }
        Ok(record)
    }
}

/// The name of a blob's feed among an image's files.
pub(crate) fn feed_file(index: usize) -> String {
    format!("{index}.feed")
}

fn compression_code(compression: Compression) -> u32 {
    match compression {
        Compression::None => 0,
        Compression::Lz4Block => 1,
        Compression::Zstd => 2,
        Compression::Gzip => 3,
    }
}

fn compression(code: u32) -> Option<Compression> {
    Some(match code {
        0 => Compression::None,
        1 => Compression::Lz4Block,
        2 => Compression::Zstd,
        3 => Compression::Gzip,
        _ => return None,
    })
}

/// Appends the check over all that is there.
pub(crate) fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let digest = Digest::blake3(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    bytes
}

/// What was [sealed](seal), if it is whole.
pub(crate) fn unseal(bytes: &[u8]) -> Option<&[u8]> {
    let (body, digest) = bytes.split_last_chunk::<DIGEST_BYTES>()?;
    Digest::new(Algorithm::Blake3, *digest)
        .verifies(body)
        .then_some(body)
}

/// A feed's map as bytes.
pub(crate) fn encode_feed(map: &FeedMap) -> Vec<u8> {
    let counts = [map.extents().len() as u64, map.chunks().len() as u64];
    let mut out = Vec::with_capacity(64 + map.extents().len() * 24 + map.chunks().len() * 48);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[0; 8]);
    for count in counts {
        out.extend_from_slice(&count.to_le_bytes());
    }
    for extent in map.extents() {
        out.extend_from_slice(&extent.blob_offset.to_le_bytes());
        out.extend_from_slice(&extent.stored_bytes.to_le_bytes());
        out.extend_from_slice(&extent.decoded_bytes.to_le_bytes());
        out.extend_from_slice(&compression_code(extent.compression).to_le_bytes());
        out.extend_from_slice(&extent.chunks.end.to_le_bytes());
    }
    for chunk in map.chunks() {
        // A place is a multiple of a block: its low 12 bits have room for these.
        let algorithm = u64::from(chunk.digest.algorithm() == Algorithm::Blake3);
        let packed = chunk.place | u64::from(chunk.device) << 1 | algorithm;
        out.extend_from_slice(&packed.to_le_bytes());
        out.extend_from_slice(&chunk.bytes.to_le_bytes());
        out.extend_from_slice(&chunk.offset.to_le_bytes());
        out.extend_from_slice(chunk.digest.as_bytes());
    }
    seal(out)
}

/// Takes fields off the front of bytes.
#[derive(Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

/// A feed's map from its bytes.
///
/// # Errors
/// `InvalidData` when they are not what [`encode_feed`] wrote.
pub(crate) fn decode_feed(bytes: &[u8]) -> io::Result<FeedMap> {
    let torn = || invalid("a feed's map is torn or of another version");
    decode_body(unseal(bytes).ok_or_else(torn)?).ok_or_else(torn)
}

fn decode_body(body: &[u8]) -> Option<FeedMap> {
    let mut fields = Fields(body);
    if fields.take::<8>()? != *MAGIC || fields.u64()? != 0 {
        return None;
    }
    let extent_count = usize::try_from(fields.u64()?).ok()?;
    let chunk_count = usize::try_from(fields.u64()?).ok()?;
    let mut extents = Vec::with_capacity(extent_count.min(body.len()));
    let mut start = 0;
    for _ in 0..extent_count {
        let blob_offset = fields.u64()?;
        let (stored_bytes, decoded_bytes) = (fields.u32()?, fields.u32()?);
        let compression = compression(fields.u32()?)?;
        let end = fields.u32()?;
        extents.push(FeedExtent {
            blob_offset,
            stored_bytes,
            decoded_bytes,
            compression,
            chunks: start..end,
        });
        start = end;
    }
    let mut chunks = Vec::with_capacity(chunk_count.min(body.len()));
    for _ in 0..chunk_count {
        let packed = fields.u64()?;
        let (bytes, offset) = (fields.u32()?, fields.u32()?);
        let algorithm = if packed & 1 == 0 {
            Algorithm::Sha256
        } else {
            Algorithm::Blake3
        };
        let digest = Digest::new(algorithm, fields.take()?);
        chunks.push(FeedChunk {
            device: u16::try_from(packed >> 1 & (DEVICES_MAX as u64 - 1)).ok()?,
            place: packed & !0xFFF,
            bytes,
            offset,
            digest,
        });
    }
    FeedMap::from_parts(extents, chunks).filter(|_| fields.0.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> FeedMap {
        let chunk = |device, place, offset| FeedChunk {
            device,
            place,
            bytes: 100,
            offset,
            digest: Digest::blake3(b"x"),
        };
        let extent = |blob_offset, chunks| FeedExtent {
            blob_offset,
            stored_bytes: 50,
            decoded_bytes: 200,
            compression: Compression::Zstd,
            chunks,
        };
        let extents = vec![extent(0, 0..2), extent(50, 2..3)];
        let mut chunks = vec![chunk(0, 0, 0), chunk(2047, 4096, 100), chunk(0, 12288, 0)];
        chunks[2].digest = Digest::sha256(b"y");
        FeedMap::from_parts(extents, chunks).unwrap()
    }

    #[test]
    fn feeds_come_back_as_they_were() {
        let (map, back) = (map(), decode_feed(&encode_feed(&map())).unwrap());
        assert_eq!(
            (map.extents(), map.chunks()),
            (back.extents(), back.chunks())
        );
    }

    #[test]
    fn a_feed_with_any_bit_flipped_or_any_byte_missing_is_refused() {
        let bytes = encode_feed(&map());
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1;
            assert!(decode_feed(&bent).is_err(), "byte {at}");
            assert!(decode_feed(&bytes[..at]).is_err(), "cut off at {at}");
        }
    }
}
