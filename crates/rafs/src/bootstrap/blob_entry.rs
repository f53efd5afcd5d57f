//! Entries of the blob table.

use draught_digest::{Algorithm, Digest};
use draught_tree::{BLOCK_BYTES, BlobOffset, Compression};
use zerocopy::FromZeros as _;

use crate::blob::{BlobFeatures, BlobInfo, ChunkInfoRange, TocRange};
use crate::bootstrap::raw::{BLOB_ID_BYTES, RawBlob};
use crate::bootstrap::read::ReadError;
use crate::bootstrap::{CHUNKS_MAX, DEVICE_BYTES_MAX, STORED_BYTES_MAX};

/// What stands for the id of the blob that the bootstrap itself is in.
const OWN_ID: [u8; BLOB_ID_BYTES] = [b'x'; BLOB_ID_BYTES];

pub(crate) fn compressor_id(compression: Compression) -> u32 {
    match compression {
        Compression::None => 0,
        Compression::Lz4Block => 1,
        Compression::Gzip => 2,
        Compression::Zstd => 3,
    }
}

fn compression(id: u32) -> Option<Compression> {
    match id {
        0 => Some(Compression::None),
        1 => Some(Compression::Lz4Block),
        2 => Some(Compression::Gzip),
        3 => Some(Compression::Zstd),
        _ => None,
    }
}

/// A blob's id in slots and tables.
pub(crate) fn id(info: &BlobInfo) -> [u8; BLOB_ID_BYTES] {
    let mut id = OWN_ID;
    if let Some(digest) = &info.digest {
        for (to, from) in id.iter_mut().zip(digest.hex().bytes()) {
            *to = from;
        }
    }
    id
}

pub(crate) fn encode(index: u32, info: &BlobInfo) -> [u8; 256] {
    let mut raw = RawBlob::new_zeroed();
    raw.id = id(info);
    raw.index = index.into();
    raw.chunk_bytes = info.chunk_bytes_max.into();
    raw.chunks = info.chunks.into();
    raw.compressor = compressor_id(info.compression).into();
    raw.digester = match info.digester {
        Algorithm::Blake3 => 0,
        Algorithm::Sha256 => 1,
    }
    .into();
    raw.features = info.features.bits().into();
    raw.stored_bytes = info.stored_bytes.into();
    raw.device_bytes = info.device_bytes.into();
    raw.chunk_info_compressor = compressor_id(info.chunk_info.compression).into();
    raw.chunk_info_offset = info.chunk_info.offset.0.into();
    raw.chunk_info_stored_bytes = info.chunk_info.stored_bytes.into();
    raw.chunk_info_decoded_bytes = info.chunk_info.decoded_bytes.into();
    if let Some(toc) = &info.toc {
        raw.toc_bytes = toc.bytes.into();
        raw.toc_sha256 = toc.sha256;
    }
    zerocopy::transmute!(raw)
}

/// Reads the entry of that index; `own` is the digest of the blob that the bootstrap is in, if it is in one.
pub(crate) fn decode(
    index: u32,
    raw: &RawBlob,
    chunk_bytes: u32,
    own: Option<Digest>,
) -> Result<BlobInfo, ReadError> {
    let bad = |problem| ReadError::Blob { index, problem };
    let features = BlobFeatures::from_bits(raw.features.get());
    let supported = features.check_supported();
    supported.map_err(|source| ReadError::BlobFeatures { index, source })?;
    if !features.contains(BlobFeatures::ALIGNED) {
        return Err(bad("its chunks are not aligned to blocks"));
    }
    if raw.cipher.get() != 0 {
        return Err(bad("it is encrypted, which is not supported"));
    }
    if raw.index.get() != index {
        return Err(bad("it says to be another one"));
    }
    if raw.chunk_bytes.get() != chunk_bytes {
        return Err(bad("its chunk size is not that of the image"));
    }
    if raw.chunks.get() > CHUNKS_MAX {
        return Err(bad("it has more than 2^24 chunks"));
    }
    let device_bytes = raw.device_bytes.get();
    if device_bytes > DEVICE_BYTES_MAX {
        return Err(bad("it has more than 16 TiB of decoded data"));
    }
    if raw.stored_bytes.get() > STORED_BYTES_MAX {
        return Err(bad("it has more than 1 TiB of stored data"));
    }
    let chunk_info_offset = raw.chunk_info_offset.get();
    let chunk_info_bytes = raw.chunk_info_stored_bytes.get();
    if chunk_info_offset > STORED_BYTES_MAX || chunk_info_bytes > STORED_BYTES_MAX {
        return Err(bad("its chunk-info table is out of reach"));
    }
    let unknown = "its compressor is not known";
    let toc = (raw.toc_bytes.get() != 0 && raw.toc_sha256 != [0; 32]).then_some(TocRange {
        bytes: raw.toc_bytes.get(),
        sha256: raw.toc_sha256,
    });
    Ok(BlobInfo {
        digest: Some(digest(index, &raw.id, own)?),
        features,
        compression: compression(raw.compressor.get()).ok_or(bad(unknown))?,
        digester: match raw.digester.get() {
            0 => Algorithm::Blake3,
            1 => Algorithm::Sha256,
            _ => return Err(bad("its digest algorithm is not known")),
        },
        chunk_bytes_max: chunk_bytes,
        chunks: raw.chunks.get(),
        stored_bytes: raw.stored_bytes.get(),
        device_bytes: device_bytes.next_multiple_of(BLOCK_BYTES),
        chunk_info: ChunkInfoRange {
            offset: BlobOffset(chunk_info_offset),
            stored_bytes: chunk_info_bytes,
            decoded_bytes: raw.chunk_info_decoded_bytes.get(),
            compression: compression(raw.chunk_info_compressor.get()).ok_or(bad(unknown))?,
        },
        toc,
    })
}

fn digest(index: u32, id: &[u8; BLOB_ID_BYTES], own: Option<Digest>) -> Result<Digest, ReadError> {
    if *id == OWN_ID {
        let problem = "its id is left open: it is the blob that this bootstrap was taken from";
        return own.ok_or(ReadError::Blob { index, problem });
    }
    let hex = str::from_utf8(id).unwrap_or_default();
    let digest = format!("sha256:{hex}").parse();
    digest.map_err(|_| ReadError::Blob {
        index,
        problem: "its id is no SHA-256",
    })
}
