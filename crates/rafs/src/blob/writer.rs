//! Writing a blob, from front to back, without I/O.

use draught_codec::EncodeError;
use draught_digest::{Algorithm, Digest, Hasher};
use draught_tree::{
    BLOCK_BYTES, BlobId, BlobOffset, Chunk, ChunkOffset, Compression, DeviceOffset, Extent,
    ExtentId,
};
use zerocopy::{FromZeros, IntoBytes};

use super::features::BlobFeatures;
use super::info::{BlobInfo, BlobOptions, ChunkInfoRange, TocRange};
use super::raw::{CHUNK_INFO_HEADER_BYTES, CHUNK_INFO_MAGIC, RawChunkInfoHeader};
use super::table::{self, ChunkTable};
use super::table_encode;
use super::tar_header::{self, TAR_HEADER_BYTES};
use super::toc::{self, TocEntry};

/// Chunks in a blob: their index has 24 bits, and nydus never uses the last.
const CHUNKS_MAX: usize = 0x00ff_ffff;
/// Stored data of a blob in bytes: an offset has 40 bits.
const DATA_BYTES_MAX: u64 = 1 << 40;
/// Decoded data of a blob in bytes: a place has 44 bits.
const DEVICE_BYTES_MAX: u64 = 1 << 44;
/// Decoded size of an extent in bytes.
const EXTENT_BYTES_MAX: u32 = 16 << 20;
/// The largest stored size that a 24-byte entry can express, in bytes.
const STORED_V2_BYTES_MAX: u32 = (16 << 20) - 1;

/// Why a blob can't be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobWriteError {
    /// It has more of something than the format can express.
    #[error("the blob can't be written: {what} would be {value}, the format's limit is {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        value: u64,
        /// How much there may be.
        limit: u64,
    },
    /// An extent with several chunks was given, but the blob is to have no batches.
    #[error("an extent with {chunks} chunks needs a blob with batches")]
    Batch {
        /// Its chunks.
        chunks: usize,
    },
    /// The blob has no chunk: such a blob must not be written.
    #[error("the blob has no chunk")]
    Empty,
    /// A table can't be compressed.
    #[error("failed to compress the blob's table {name:?}")]
    Encode {
        /// The table's name.
        name: &'static str,
        /// Why.
        source: EncodeError,
    },
}

fn within(what: &'static str, value: u64, limit: u64) -> Result<(), BlobWriteError> {
    if value > limit {
        return Err(BlobWriteError::Limit { what, value, limit });
    }
    Ok(())
}

/// Keeps the books while the chunk data is written: [`push`](Self::push) each extent in the order in
/// which its stored bytes are appended to the blob; then append what [`finish_data`](Self::finish_data)
/// gives, and last what [`BlobTail::finish`] gives.
#[derive(Debug)]
pub struct BlobWriter {
    options: BlobOptions,
    table: ChunkTable,
    data_bytes: u64,
    device_bytes: u64,
}

impl BlobWriter {
    /// A blob without data.
    #[must_use]
    pub fn new(options: BlobOptions) -> Self {
        Self {
            options,
            table: ChunkTable::default(),
            data_bytes: 0,
            device_bytes: 0,
        }
    }

    /// How many chunks it has.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.table.chunks.len()
    }

    /// Notes the next extent: `stored_bytes` that were appended to the blob and decode, by
    /// `compression`, to `chunks` (digest and size in bytes) one after the other.
    ///
    /// # Errors
    /// [`BlobWriteError::Limit`], [`BlobWriteError::Batch`].
    pub fn push(
        &mut self,
        chunks: &[(Digest, u32)],
        stored_bytes: u32,
        compression: Compression,
    ) -> Result<(), BlobWriteError> {
        if chunks.len() > 1 && !self.options.batches {
            return Err(BlobWriteError::Batch {
                chunks: chunks.len(),
            });
        }
        let all_chunks = (self.table.chunks.len() + chunks.len()) as u64;
        within("its chunks", all_chunks, CHUNKS_MAX as u64)?;
        within(
            "a stored size",
            stored_bytes.into(),
            if self.options.batches {
                STORED_V2_BYTES_MAX.into()
            } else {
                EXTENT_BYTES_MAX.into()
            },
        )?;
        let extent = ExtentId(u32::try_from(self.table.extents.len()).unwrap_or(u32::MAX));
        let (mut decoded_bytes, mut place) = (0_u32, self.device_bytes);
        for (digest, bytes) in chunks {
            self.table.chunks.push(Chunk {
                digest: *digest,
                extent,
                offset: ChunkOffset(decoded_bytes.into()),
                bytes: *bytes,
                place: DeviceOffset(place),
            });
            decoded_bytes = decoded_bytes.saturating_add(*bytes);
            place += u64::from(*bytes).next_multiple_of(BLOCK_BYTES);
        }
        within("an extent", decoded_bytes.into(), EXTENT_BYTES_MAX.into())?;
        within("its decoded size", place, DEVICE_BYTES_MAX)?;
        self.table.extents.push(Extent {
            blob: BlobId(0),
            offset: BlobOffset(self.data_bytes),
            stored_bytes,
            decoded_bytes,
            compression,
        });
        self.device_bytes = place;
        self.data_bytes += u64::from(stored_bytes);
        within("its stored data", self.data_bytes, DATA_BYTES_MAX)
    }

    /// Ends the data. Gives the bytes that follow it, and what is needed to end the blob. `data` is a
    /// SHA-256 that has seen all of the data and nothing else; `with_bootstrap` promises a bootstrap of
    /// the layer.
    ///
    /// # Errors
    /// [`BlobWriteError::Empty`], [`BlobWriteError::Encode`].
    pub fn finish_data(
        self,
        mut data: Hasher,
        with_bootstrap: bool,
    ) -> Result<(Vec<u8>, BlobTail), BlobWriteError> {
        if self.table.chunks.is_empty() {
            return Err(BlobWriteError::Empty);
        }
        let mut tail = BlobTail {
            info: self.info(with_bootstrap),
            entries: Vec::new(),
            table: self.table,
        };
        let header = tar_header::encode(toc::BLOB_DATA, self.data_bytes);
        let mut out = header.to_vec();
        // nydus digests the tar header too, and forgets to decode. Nobody checks this digest.
        data.update(&header);
        tail.entries.push(TocEntry {
            name: toc::BLOB_DATA.to_owned(),
            compression: Compression::None,
            digest: data.finish(),
            offset: BlobOffset(0),
            stored_bytes: self.data_bytes,
            decoded_bytes: self.device_bytes,
        });
        tail.chunk_info(&mut out, self.data_bytes)?;
        tail.digests(&mut out, self.data_bytes);
        tail.info.stored_bytes = self.data_bytes + out.len() as u64;
        Ok((out, tail))
    }

    fn info(&self, with_bootstrap: bool) -> BlobInfo {
        let mut features = BlobFeatures::ALIGNED
            .union(BlobFeatures::INLINED_CHUNK_DIGEST)
            .union(BlobFeatures::HAS_TAR_HEADER)
            .union(BlobFeatures::HAS_TOC)
            .union(BlobFeatures::CAP_TAR_TOC);
        if self.options.batches {
            features = features
                .union(BlobFeatures::BATCH)
                .union(BlobFeatures::CHUNK_INFO_V2);
        }
        if with_bootstrap {
            features = features.union(BlobFeatures::INLINED_FS_META);
        }
        BlobInfo {
            digest: None,
            features,
            compression: self.options.compression,
            digester: self.options.digester,
            chunk_bytes_max: self.options.chunk_bytes_max,
            chunks: u32::try_from(self.table.chunks.len()).unwrap_or(u32::MAX),
            stored_bytes: 0,
            device_bytes: self.device_bytes,
            chunk_info: ChunkInfoRange {
                offset: BlobOffset(self.data_bytes + TAR_HEADER_BYTES as u64),
                stored_bytes: 0,
                decoded_bytes: 0,
                compression: Compression::None,
            },
            toc: None,
        }
    }
}

/// A blob whose data is complete and whose end is missing.
#[derive(Debug)]
pub struct BlobTail {
    info: BlobInfo,
    entries: Vec<TocEntry>,
    table: ChunkTable,
}

impl BlobTail {
    /// What is known of the blob so far: all but its digest, its final size and its table of contents.
    /// Enough for the bootstrap that is put into it.
    #[must_use]
    pub fn info(&self) -> &BlobInfo {
        &self.info
    }

    /// The blob's extents and chunks.
    #[must_use]
    pub fn table(&self) -> &ChunkTable {
        &self.table
    }

    /// The blob's extents and chunks, which are not needed here any more.
    pub fn take_table(&mut self) -> ChunkTable {
        std::mem::take(&mut self.table)
    }

    /// Ends the blob: gives its last bytes, and all facts but its digest. `bootstrap` is that of the
    /// layer, if one was promised.
    ///
    /// # Errors
    /// [`BlobWriteError::Encode`].
    pub fn finish(
        mut self,
        bootstrap: Option<&[u8]>,
    ) -> Result<(Vec<u8>, BlobInfo), BlobWriteError> {
        let mut out = Vec::new();
        if let Some(bootstrap) = bootstrap {
            let (stored, compression) = encode(toc::BOOTSTRAP, Compression::Zstd, bootstrap)?;
            self.entries.push(TocEntry {
                name: toc::BOOTSTRAP.to_owned(),
                compression,
                digest: Digest::sha256(bootstrap),
                offset: BlobOffset(self.info.stored_bytes),
                stored_bytes: stored.len() as u64,
                decoded_bytes: bootstrap.len() as u64,
            });
            out.extend_from_slice(&stored);
            out.extend_from_slice(&tar_header::encode(toc::BOOTSTRAP, stored.len() as u64));
        }
        let mut table = toc::encode_table(&self.entries);
        let header = tar_header::encode(toc::TOC, table.len() as u64);
        table.extend_from_slice(&header);
        self.info.toc = Some(TocRange {
            bytes: u32::try_from(table.len()).unwrap_or(u32::MAX),
            sha256: *Digest::sha256(&table).as_bytes(),
        });
        out.extend_from_slice(&table);
        self.info.stored_bytes += out.len() as u64;
        Ok((out, self.info))
    }

    fn chunk_info(&mut self, out: &mut Vec<u8>, data_bytes: u64) -> Result<(), BlobWriteError> {
        let batches = self.info.features.contains(BlobFeatures::BATCH);
        let encoded = if batches {
            table_encode::encode_v2(&self.table)
        } else {
            table_encode::encode_v1(&self.table)
        };
        let table = &encoded.bytes;
        let (stored, compression) = encode(toc::CHUNK_INFO, self.info.compression, table)?;
        let offset = data_bytes + out.len() as u64;
        self.info.chunk_info = ChunkInfoRange {
            offset: BlobOffset(offset),
            stored_bytes: stored.len() as u64,
            decoded_bytes: table.len() as u64,
            compression,
        };
        let mut header = RawChunkInfoHeader::new_zeroed();
        header.magic = CHUNK_INFO_MAGIC.into();
        header.features = self.info.features.bits().into();
        header.compressor = table::compressor_id(compression).into();
        header.entries = self.info.chunks.into();
        header.offset = offset.into();
        header.stored_bytes = (stored.len() as u64).into();
        header.decoded_bytes = (table.len() as u64).into();
        if batches {
            header.contexts = encoded.batches.into();
            header.contexts_offset = encoded.batches_offset.into();
            header.contexts_bytes = (table.len() as u64 - encoded.batches_offset).into();
        }
        header.magic2 = CHUNK_INFO_MAGIC.into();
        out.extend_from_slice(&stored);
        out.extend_from_slice(header.as_bytes());
        let part = stored.len() as u64 + CHUNK_INFO_HEADER_BYTES as u64;
        out.extend_from_slice(&tar_header::encode(toc::CHUNK_INFO, part));
        self.entries.push(TocEntry {
            name: toc::CHUNK_INFO.to_owned(),
            compression,
            digest: Digest::sha256(table),
            offset: BlobOffset(offset),
            stored_bytes: stored.len() as u64,
            decoded_bytes: table.len() as u64,
        });
        self.entries.push(TocEntry {
            name: toc::CHUNK_INFO_HEADER.to_owned(),
            compression: Compression::None,
            digest: Digest::sha256(header.as_bytes()),
            offset: BlobOffset(offset + stored.len() as u64),
            stored_bytes: CHUNK_INFO_HEADER_BYTES as u64,
            decoded_bytes: CHUNK_INFO_HEADER_BYTES as u64,
        });
        Ok(())
    }

    fn digests(&mut self, out: &mut Vec<u8>, data_bytes: u64) {
        let offset = data_bytes + out.len() as u64;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        for chunk in &self.table.chunks {
            hasher.update(chunk.digest.as_bytes());
            out.extend_from_slice(chunk.digest.as_bytes());
        }
        let bytes = data_bytes + out.len() as u64 - offset;
        out.extend_from_slice(&tar_header::encode(toc::CHUNK_DIGESTS, bytes));
        self.entries.push(TocEntry {
            name: toc::CHUNK_DIGESTS.to_owned(),
            compression: Compression::None,
            digest: hasher.finish(),
            offset: BlobOffset(offset),
            stored_bytes: bytes,
            decoded_bytes: bytes,
        });
    }
}

fn encode(
    name: &'static str,
    compression: Compression,
    data: &[u8],
) -> Result<(Vec<u8>, Compression), BlobWriteError> {
    toc::encode_part(compression, data).map_err(|source| BlobWriteError::Encode { name, source })
}
