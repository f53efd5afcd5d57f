//! Reading records. They come from wherever the cache is: all is checked, nothing is believed that would
//! not be believed of a layer.

use std::io::{self, BufRead as _, BufReader, Read};

use draught_digest::{Algorithm, DIGEST_BYTES, Digest};
use draught_rafs::blob::{BlobFeatures, BlobInfo, ChunkInfoRange, ChunkTable, TocRange};
use draught_tree::{
    ApplyError, BLOCK_BYTES, BlobId, BlobOffset, Chunk, ChunkId, ChunkOffset, Compression,
    DeviceOffset, Entry, EntryKind, Extent, ExtentId, Meta,
};
use flate2::read::GzDecoder;

use super::{
    BLOCK_DEVICE, CHAR_DEVICE, DIGESTS, DIRECTORY, END, FIFO, FILE, HARD_LINK, Head, MAGIC, SOCKET,
    STORED, SYMLINK,
};
use crate::progress::LayerReport;

/// Decoded bytes of a part of a record. 4 GiB: some hundred times what the largest layers that we know have.
const DECODED_BYTES_MAX: u64 = 4 << 30;

/// Bytes of a path, a target, or the name or value of an attribute: more than the tree takes.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Extents of a blob, and chunks of one: what its format can express.
const CHUNKS_MAX: usize = 1 << 24;

/// Extended attributes of an entry: each takes some of the 128 KiB that they may have together.
const XATTRS_MAX: usize = 1 << 16;

/// Why a record is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It is something else, or of another version.
    #[error("the layer's record does not begin like one that this version knows")]
    Magic,
    /// It ends early, or is not the gzip that it should be.
    #[error("the layer's record is cut off or damaged")]
    Io {
        /// What the decoder says.
        source: io::Error,
    },
    /// It says something that can't be.
    #[error("the layer's record has a {what} that can't be")]
    Value {
        /// Of what.
        what: &'static str,
    },
    /// It belongs on top of other layers.
    #[error("the layer's record is for an image with {expected} {what}, this one has {got}")]
    Parent {
        /// What does not fit.
        what: &'static str,
        /// What the record says.
        expected: u64,
        /// What is there.
        got: u64,
    },
    /// An entry can't be applied.
    #[error("an entry of the layer's record can't be applied")]
    Apply {
        /// Why.
        source: ApplyError,
    },
}

fn wrong(what: &'static str) -> RecordError {
    RecordError::Value { what }
}

/// Reads the head of a record, and begins with its entries.
pub(crate) fn read(record: &[u8]) -> Result<(Head, Entries<'_>), RecordError> {
    let rest = record.strip_prefix(MAGIC).ok_or(RecordError::Magic)?;
    let (bytes, rest) = rest.split_first_chunk::<8>().ok_or(RecordError::Magic)?;
    let bytes = usize::try_from(u64::from_le_bytes(*bytes)).unwrap_or(usize::MAX);
    let (head, entries) = rest.split_at_checked(bytes).ok_or(wrong("head"))?;
    let head = Fields::new(head).head()?;
    let entries = Entries {
        fields: Fields::new(entries),
        next: 0,
    };
    Ok((head, entries))
}

/// The entries of a record, in their order.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    fields: Fields<'a>,
    next: u32,
}

impl Entries<'_> {
    /// The next one; `None` at the end. `bytes_of` gives the size of a chunk that there is: the content of
    /// a file must be as long as the file.
    pub(crate) fn next_entry(
        &mut self,
        bytes_of: impl Fn(ChunkId) -> Option<u32>,
    ) -> Result<Option<Entry>, RecordError> {
        let fields = &mut self.fields;
        let tag = fields.byte()?;
        if tag == END {
            fields.end()?;
            return Ok(None);
        }
        let path = fields.text()?;
        let meta = fields.meta()?;
        let kind = match tag {
            DIRECTORY => EntryKind::Directory,
            FILE => {
                let bytes = fields.number()?;
                let chunks = self.chunks(bytes, bytes_of)?;
                EntryKind::File { bytes, chunks }
            }
            SYMLINK => EntryKind::Symlink(fields.text()?),
            HARD_LINK => EntryKind::HardLink(fields.text()?),
            CHAR_DEVICE | BLOCK_DEVICE => {
                let (major, minor) = (fields.small()?, fields.small()?);
                match tag {
                    CHAR_DEVICE => EntryKind::CharDevice { major, minor },
                    _ => EntryKind::BlockDevice { major, minor },
                }
            }
            FIFO => EntryKind::Fifo,
            SOCKET => EntryKind::Socket,
            _ => return Err(wrong("kind of entry")),
        };
        Ok(Some(Entry { path, meta, kind }))
    }

    fn chunks(
        &mut self,
        bytes: u64,
        bytes_of: impl Fn(ChunkId) -> Option<u32>,
    ) -> Result<Box<[ChunkId]>, RecordError> {
        let count = self.fields.number()?;
        let mut chunks = Vec::new();
        let mut left = bytes;
        for _ in 0..count {
            let id = i64::from(self.next).checked_add(self.fields.signed()?);
            let id = id.and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or(wrong("chunk"))?;
            let chunk_bytes = bytes_of(ChunkId(id)).ok_or(wrong("chunk"))?;
            left = left
                .checked_sub(chunk_bytes.into())
                .ok_or(wrong("file size"))?;
            self.next = id.saturating_add(1);
            chunks.push(ChunkId(id));
        }
        if left > 0 {
            return Err(wrong("file size"));
        }
        Ok(chunks.into_boxed_slice())
    }
}

/// Numbers and texts, one after the other.
#[derive(Debug)]
struct Fields<'a>(BufReader<io::Take<GzDecoder<&'a [u8]>>>);

impl<'a> Fields<'a> {
    fn new(gzip: &'a [u8]) -> Self {
        Self(BufReader::new(GzDecoder::new(gzip).take(DECODED_BYTES_MAX)))
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), RecordError> {
        let read = self.0.read_exact(out);
        read.map_err(|source| RecordError::Io { source })
    }

    /// Nothing must follow.
    fn end(&mut self) -> Result<(), RecordError> {
        match self.0.fill_buf() {
            Ok([]) => Ok(()),
            Ok(_) => Err(wrong("length")),
            Err(source) => Err(RecordError::Io { source }),
        }
    }

    fn byte(&mut self) -> Result<u8, RecordError> {
        let mut byte = [0];
        self.fill(&mut byte)?;
        Ok(byte[0])
    }

    fn number(&mut self) -> Result<u64, RecordError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(wrong("number"))
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Result<T, RecordError> {
        T::try_from(self.number()?).map_err(|_| wrong("number"))
    }

    fn signed(&mut self) -> Result<i64, RecordError> {
        let value = self.number()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn length(&mut self, max: usize) -> Result<usize, RecordError> {
        let length: usize = self.small()?;
        if length > max {
            return Err(wrong("length"));
        }
        Ok(length)
    }

    fn text(&mut self) -> Result<Box<[u8]>, RecordError> {
        let mut text = vec![0; self.length(TEXT_BYTES_MAX)?];
        self.fill(&mut text)?;
        Ok(text.into_boxed_slice())
    }

    fn meta(&mut self) -> Result<Meta, RecordError> {
        let mut meta = Meta {
            mode: self.small()?,
            uid: self.small()?,
            gid: self.small()?,
            mtime: self.signed()?,
            mtime_nsec: self.small()?,
            xattrs: Vec::new(),
        };
        if meta.mode > 0o7777 || meta.mtime_nsec >= 1_000_000_000 {
            return Err(wrong("mode or time"));
        }
        for _ in 0..self.length(XATTRS_MAX)? {
            let (name, value) = (self.text()?, self.text()?);
            if meta.xattrs.last().is_some_and(|(last, _)| *last >= name) {
                return Err(wrong("order of attributes"));
            }
            meta.xattrs.push((name, value));
        }
        Ok(meta)
    }

    fn compression(&mut self) -> Result<Compression, RecordError> {
        let byte = self.byte()?;
        let known = STORED.iter().find(|(id, _)| *id == byte);
        known.map(|(_, it)| *it).ok_or(wrong("compression"))
    }

    fn algorithm(&mut self) -> Result<Algorithm, RecordError> {
        let byte = self.byte()?;
        let known = DIGESTS.iter().find(|(id, _)| *id == byte);
        known.map(|(_, it)| *it).ok_or(wrong("digest"))
    }

    fn hash(&mut self) -> Result<[u8; DIGEST_BYTES], RecordError> {
        let mut hash = [0; DIGEST_BYTES];
        self.fill(&mut hash)?;
        Ok(hash)
    }

    fn head(mut self) -> Result<Head, RecordError> {
        let first_chunk = self.small()?;
        let mut report = LayerReport {
            stored_bytes: self.number()?,
            digest: None,
            diff_id: None,
            decoded_bytes: self.number()?,
            entries: self.number()?,
            chunks: self.number()?,
            new_chunks: self.number()?,
            blob_bytes: 0,
            cached: true,
        };
        let blob = match self.byte()? {
            0 => None,
            1 => Some(self.blob()?),
            _ => return Err(wrong("blob")),
        };
        if let Some((info, _)) = &blob {
            report.blob_bytes = info.stored_bytes;
        }
        self.end()?;
        Ok(Head {
            first_chunk,
            report,
            blob,
        })
    }

    fn blob(&mut self) -> Result<(BlobInfo, ChunkTable), RecordError> {
        let algorithm = self.algorithm()?;
        let mut info = BlobInfo {
            digest: Some(Digest::new(algorithm, self.hash()?)),
            features: BlobFeatures::from_bits(self.small()?),
            compression: self.compression()?,
            digester: self.algorithm()?,
            chunk_bytes_max: self.small()?,
            chunks: 0,
            stored_bytes: self.number()?,
            device_bytes: 0,
            chunk_info: ChunkInfoRange {
                offset: BlobOffset(self.number()?),
                stored_bytes: self.number()?,
                decoded_bytes: self.number()?,
                compression: self.compression()?,
            },
            toc: None,
        };
        if self.byte()? == 1 {
            info.toc = Some(TocRange {
                bytes: self.small()?,
                sha256: self.hash()?,
            });
        }
        let (table, device_bytes) = self.table(info.digester, info.stored_bytes)?;
        info.chunks = u32::try_from(table.chunks.len()).map_err(|_| wrong("chunk count"))?;
        info.device_bytes = device_bytes;
        Ok((info, table))
    }

    /// The extents and chunks, one after the other, as the blob's writer placed them.
    fn table(
        &mut self,
        digester: Algorithm,
        blob_bytes: u64,
    ) -> Result<(ChunkTable, u64), RecordError> {
        let mut table = ChunkTable::default();
        let (mut offset, mut place) = (0_u64, 0_u64);
        for at in 0..self.length(CHUNKS_MAX)? {
            let extent = ExtentId(u32::try_from(at).unwrap_or(u32::MAX));
            let stored_bytes: u32 = self.small()?;
            let compression = self.compression()?;
            let mut decoded_bytes = 0_u32;
            for _ in 0..self.length(CHUNKS_MAX)? {
                let bytes: u32 = self.small()?;
                let digest = Digest::new(digester, self.hash()?);
                if bytes == 0 || table.chunks.len() >= CHUNKS_MAX {
                    return Err(wrong("chunk"));
                }
                table.chunks.push(Chunk {
                    digest,
                    extent,
                    offset: ChunkOffset(decoded_bytes.into()),
                    bytes,
                    place: DeviceOffset(place),
                });
                decoded_bytes = decoded_bytes.checked_add(bytes).ok_or(wrong("extent"))?;
                place = place.saturating_add(u64::from(bytes).next_multiple_of(BLOCK_BYTES));
            }
            table.extents.push(Extent {
                blob: BlobId(0),
                offset: BlobOffset(offset),
                stored_bytes,
                decoded_bytes,
                compression,
            });
            offset = offset.saturating_add(stored_bytes.into());
        }
        if table.chunks.is_empty() || offset > blob_bytes {
            return Err(wrong("blob"));
        }
        Ok((table, place))
    }
}
