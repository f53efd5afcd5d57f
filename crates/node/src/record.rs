//! What is kept of an attached image, so that a worker can serve it without asking anybody.
//!
//! Two kinds of files in the image's directory of the store, both written once and replaced atomically:
//! `image.json` names the devices; `N.map` says what belongs on device N: a header of 32 bytes, 24 bytes
//! an extent, 48 bytes a chunk, all little endian, and a SHA-256 of all that. `docs/store.md` has the
//! fields.

use std::io;

use draught_digest::{Algorithm, DIGEST_BYTES, Digest};
use draught_fill::{DeviceMap, MapChunk, MapExtent};
use draught_tree::Compression;
use serde::{Deserialize, Serialize};

use crate::handover::Key;

/// The version that is written.
pub(crate) const VERSION: u32 = 1;
/// First bytes of a map's file.
const MAGIC: &[u8; 8] = b"DRGHTMAP";

/// An attached image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageRecord {
    pub(crate) version: u32,
    /// Digest of the manifest that was attached.
    pub(crate) digest: String,
    /// The devices in the order of the metadata image's device table.
    pub(crate) devices: Vec<DeviceRecord>,
}

/// One device of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceRecord {
    /// The key of the device in the store: 64 hexadecimal digits.
    pub(crate) key: String,
    /// The blob that it is filled from.
    pub(crate) blob: String,
    /// Size of the device in bytes.
    pub(crate) bytes: u64,
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

/// The name of a device's map among an image's files.
pub(crate) fn map_file(index: usize) -> String {
    format!("{index}.map")
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

/// A device's map as bytes.
pub(crate) fn encode_map(map: &DeviceMap) -> Vec<u8> {
    let counts = [map.extents().len() as u64, map.chunks().len() as u64];
    let mut out = Vec::with_capacity(64 + map.extents().len() * 24 + map.chunks().len() * 48);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&map.bytes().to_le_bytes());
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
        // A place is a multiple of a block, so its low bits have room for the digest's algorithm.
        let algorithm = u64::from(chunk.digest.algorithm() == Algorithm::Blake3);
        out.extend_from_slice(&(chunk.place | algorithm).to_le_bytes());
        out.extend_from_slice(&chunk.bytes.to_le_bytes());
        out.extend_from_slice(&chunk.offset.to_le_bytes());
        out.extend_from_slice(chunk.digest.as_bytes());
    }
    let digest = Digest::sha256(&out);
    out.extend_from_slice(digest.as_bytes());
    out
}

/// Takes fields off the front of bytes.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

/// A device's map from its bytes.
///
/// # Errors
/// `InvalidData` when they are not what [`encode_map`] wrote.
pub(crate) fn decode_map(bytes: &[u8]) -> io::Result<DeviceMap> {
    let torn = || invalid("a device's map is torn or of another version");
    let (body, digest) = bytes.split_last_chunk::<DIGEST_BYTES>().ok_or_else(torn)?;
    if !Digest::new(Algorithm::Sha256, *digest).verifies(body) {
        return Err(torn());
    }
    decode_body(body).ok_or_else(torn)
}

fn decode_body(body: &[u8]) -> Option<DeviceMap> {
    let mut fields = Fields(body);
    if fields.take::<8>()? != *MAGIC {
        return None;
    }
    let bytes = fields.u64()?;
    let extent_count = usize::try_from(fields.u64()?).ok()?;
    let chunk_count = usize::try_from(fields.u64()?).ok()?;
    let mut extents = Vec::with_capacity(extent_count.min(body.len()));
    let mut start = 0;
    for _ in 0..extent_count {
        let blob_offset = fields.u64()?;
        let (stored_bytes, decoded_bytes) = (fields.u32()?, fields.u32()?);
        let compression = compression(fields.u32()?)?;
        let end = fields.u32()?;
        let chunks = start..end;
        extents.push(MapExtent {
            blob_offset,
            stored_bytes,
            decoded_bytes,
            compression,
            chunks,
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
        chunks.push(MapChunk {
            place: packed & !1,
            bytes,
            offset,
            digest,
        });
    }
    DeviceMap::from_parts(bytes, extents, chunks).filter(|_| fields.0.is_empty())
}

/// The key under which the store has the device of a blob as one image maps it.
///
/// It covers the map and not the blob alone: what an image says about a blob is believed for that
/// image only, so that no image can make another's chunks appear where they do not belong.
pub(crate) fn device_key(blob: &Digest, encoded_map: &[u8]) -> Digest {
    let mut hasher = draught_digest::Hasher::new(Algorithm::Sha256);
    hasher.update(blob.as_bytes());
    hasher.update(encoded_map);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> DeviceMap {
        let digest = Digest::blake3(b"x");
        let chunk = |place, offset| MapChunk {
            place,
            bytes: 100,
            offset,
            digest,
        };
        let extent = |blob_offset, chunks| MapExtent {
            blob_offset,
            stored_bytes: 50,
            decoded_bytes: 200,
            compression: Compression::Zstd,
            chunks,
        };
        let extents = vec![extent(0, 0..2), extent(50, 2..3)];
        let chunks = vec![chunk(0, 0), chunk(4096, 100), chunk(12288, 0)];
        DeviceMap::from_parts(16384, extents, chunks).unwrap()
    }

    #[test]
    fn maps_come_back_as_they_were() {
        assert_eq!(decode_map(&encode_map(&map())).unwrap(), map());
    }

    #[test]
    fn a_map_with_any_bit_flipped_or_any_byte_missing_is_refused() {
        let bytes = encode_map(&map());
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1;
            assert!(decode_map(&bent).is_err(), "byte {at}");
            assert!(decode_map(&bytes[..at]).is_err(), "cut off at {at}");
        }
    }
}
