//! Writing records, while a layer is packed.

use std::io::{self, Write};

use draught_digest::{Algorithm, Digest};
use draught_rafs::blob::{BlobInfo, ChunkTable};
use draught_tree::{ChunkId, Compression, Entry, EntryKind, Meta};
use flate2::write::GzEncoder;

use super::{
    BLOCK_DEVICE, CHAR_DEVICE, DIGESTS, DIRECTORY, END, FIFO, FILE, HARD_LINK, Head, MAGIC, SOCKET,
    STORED, SYMLINK,
};

/// The level of gzip: entries come from the thread that everything waits for.
const LEVEL: u32 = 3;

/// Takes down the entries of a layer. It holds them compressed: much less than the tree that they become.
#[derive(Debug)]
pub(crate) struct RecordWriter {
    entries: GzEncoder<Vec<u8>>,
    /// What the next chunk most likely is.
    next: u32,
    /// The encoded entry, in memory that is used again.
    buffer: Vec<u8>,
    failed: Option<io::Error>,
}

impl RecordWriter {
    /// A record without entries.
    pub(crate) fn new() -> Self {
        Self {
            entries: GzEncoder::new(Vec::new(), flate2::Compression::new(LEVEL)),
            next: 0,
            buffer: Vec::new(),
            failed: None,
        }
    }

    /// Adds the next entry, content and all. An error shows at the end.
    pub(crate) fn entry(&mut self, entry: &Entry) {
        self.buffer.clear();
        encode_entry(&mut self.buffer, entry, &mut self.next);
        if self.failed.is_none()
            && let Err(error) = self.entries.write_all(&self.buffer)
        {
            self.failed = Some(error);
        }
    }

    /// Ends the record.
    pub(crate) fn finish(mut self, head: &Head) -> io::Result<Vec<u8>> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.entries.write_all(&[END])?;
        let entries = self.entries.finish()?;
        let mut text = Vec::new();
        encode_head(&mut text, head);
        let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::new(LEVEL));
        gzip.write_all(&text)?;
        let head = gzip.finish()?;
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&(head.len() as u64).to_le_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(&entries);
        Ok(out)
    }
}

fn number(out: &mut Vec<u8>, value: impl Into<u64>) {
    let mut value: u64 = value.into();
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or_default());
}

/// Small for small differences, whatever their sign.
fn signed(out: &mut Vec<u8>, value: i64) {
    number(
        out,
        (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned(),
    );
}

fn length(out: &mut Vec<u8>, value: usize) {
    number(out, value as u64);
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn encode_entry(out: &mut Vec<u8>, entry: &Entry, next: &mut u32) {
    out.push(match entry.kind {
        EntryKind::Directory => DIRECTORY,
        EntryKind::File { .. } => FILE,
        EntryKind::Symlink(_) => SYMLINK,
        EntryKind::HardLink(_) => HARD_LINK,
        EntryKind::CharDevice { .. } => CHAR_DEVICE,
        EntryKind::BlockDevice { .. } => BLOCK_DEVICE,
        EntryKind::Fifo => FIFO,
        EntryKind::Socket => SOCKET,
    });
    text(out, &entry.path);
    encode_meta(out, &entry.meta);
    match &entry.kind {
        EntryKind::File { bytes, chunks } => {
            number(out, *bytes);
            length(out, chunks.len());
            for ChunkId(chunk) in chunks {
                signed(out, i64::from(*chunk) - i64::from(*next));
                *next = chunk.saturating_add(1);
            }
        }
        EntryKind::Symlink(target) | EntryKind::HardLink(target) => text(out, target),
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            number(out, *major);
            number(out, *minor);
        }
        EntryKind::Directory | EntryKind::Fifo | EntryKind::Socket => {}
    }
}

fn encode_meta(out: &mut Vec<u8>, meta: &Meta) {
    let Meta {
        mode,
        uid,
        gid,
        mtime,
        mtime_nsec,
        xattrs,
    } = meta;
    number(out, *mode);
    number(out, *uid);
    number(out, *gid);
    signed(out, *mtime);
    number(out, *mtime_nsec);
    length(out, xattrs.len());
    for (name, value) in xattrs {
        text(out, name);
        text(out, value);
    }
}

fn encode_head(out: &mut Vec<u8>, head: &Head) {
    number(out, head.first_chunk);
    let report = &head.report;
    for value in [
        report.stored_bytes,
        report.decoded_bytes,
        report.entries,
        report.chunks,
        report.new_chunks,
    ] {
        number(out, value);
    }
    match &head.blob {
        None => out.push(0),
        Some((info, table)) => {
            out.push(1);
            encode_info(out, info);
            encode_table(out, table);
        }
    }
}

fn compression(out: &mut Vec<u8>, compression: Compression) {
    let id = STORED.iter().find(|(_, known)| *known == compression);
    out.push(id.map_or(u8::MAX, |(id, _)| *id));
}

fn algorithm(out: &mut Vec<u8>, algorithm: Algorithm) {
    let id = DIGESTS.iter().find(|(_, known)| *known == algorithm);
    out.push(id.map_or(u8::MAX, |(id, _)| *id));
}

fn digest(out: &mut Vec<u8>, digest: &Digest) {
    algorithm(out, digest.algorithm());
    out.extend_from_slice(digest.as_bytes());
}

fn encode_info(out: &mut Vec<u8>, info: &BlobInfo) {
    // It is complete: it has a digest.
    digest(out, &info.digest.unwrap_or(Digest::sha256(b"")));
    number(out, info.features.bits());
    compression(out, info.compression);
    algorithm(out, info.digester);
    number(out, info.chunk_bytes_max);
    number(out, info.stored_bytes);
    number(out, info.chunk_info.offset.0);
    number(out, info.chunk_info.stored_bytes);
    number(out, info.chunk_info.decoded_bytes);
    compression(out, info.chunk_info.compression);
    match &info.toc {
        None => out.push(0),
        Some(toc) => {
            out.push(1);
            number(out, toc.bytes);
            out.extend_from_slice(&toc.sha256);
        }
    }
}

/// Extents follow each other, as their chunks do: their places need not be told.
fn encode_table(out: &mut Vec<u8>, table: &ChunkTable) {
    length(out, table.extents.len());
    let mut chunks = table.chunks.as_slice();
    for (at, extent) in table.extents.iter().enumerate() {
        number(out, extent.stored_bytes);
        compression(out, extent.compression);
        let count = chunks.iter().take_while(|chunk| chunk.extent.index() == at);
        let (these, rest) = chunks.split_at_checked(count.count()).unwrap_or_default();
        chunks = rest;
        length(out, these.len());
        for chunk in these {
            number(out, chunk.bytes);
            out.extend_from_slice(chunk.digest.as_bytes());
        }
    }
}
