//! What follows the members of the archive's entries: the table of contents and the footer.

use std::io::{self, BufWriter, Sink, Write};

use draught_codec::HashingWriter;
use draught_digest::{Algorithm, Digest};
use draught_tar::Writer;
use draught_tree::{Entry, EntryKind, Meta};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::document::Document;
use super::error::WriteError;
use crate::document::TOC_NAME;
use crate::footer;

/// Bytes that are digested and compressed at once.
const BUFFER_BYTES: usize = 64 << 10;

/// What was written behind the archive's entries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tail {
    pub(super) toc_digest: Digest,
    pub(super) toc_bytes: u64,
    pub(super) toc_stored_bytes: u64,
    pub(super) stored_bytes: u64,
}

/// Writes the table, twice: an archive says first how large a file is, and a table of any size need not be in
/// memory.
pub(super) fn write<W: Write>(
    document: Document<'_>,
    toc_offset: u64,
    toc_bytes_max: u64,
    decoded: &mut HashingWriter<Sink>,
    out: W,
) -> Result<Tail, WriteError> {
    let digested = HashingWriter::new(io::sink(), Algorithm::Sha256);
    let mut digested = BufWriter::with_capacity(BUFFER_BYTES, digested);
    document.write(&mut digested).map_err(WriteError::Out)?;
    let digested = digested.into_inner();
    let digested = digested.map_err(|error| WriteError::Out(error.into_error()))?;
    let (toc_digest, toc_bytes, _) = digested.finish();
    if toc_bytes > toc_bytes_max {
        return Err(WriteError::TooLarge {
            what: "bytes",
            value: toc_bytes,
            limit: toc_bytes_max,
        });
    }
    let (toc_stored_bytes, mut out) = write_toc(document, toc_bytes, decoded, out)?;
    let footer = footer::encode(toc_offset);
    out.write_all(&footer)
        .and_then(|()| out.flush())
        .map_err(WriteError::Out)?;
    Ok(Tail {
        toc_digest,
        toc_bytes,
        toc_stored_bytes,
        stored_bytes: toc_stored_bytes + footer.len() as u64,
    })
}

/// The archive of one file. It ends the layer's, all of which is one to unpackers.
fn write_toc<W: Write>(
    document: Document<'_>,
    toc_bytes: u64,
    decoded: &mut HashingWriter<Sink>,
    out: W,
) -> Result<(u64, W), WriteError> {
    let member = Member {
        // Piece by piece: there is no limit to its size that would let it be compressed at once.
        encoder: GzEncoder::new(Counted { out, bytes: 0 }, Compression::default()),
        decoded,
    };
    let mut archive = Writer::new(BufWriter::with_capacity(BUFFER_BYTES, member));
    let entry = Entry {
        path: TOC_NAME.as_bytes().into(),
        meta: Meta::default(),
        kind: EntryKind::File {
            bytes: toc_bytes,
            chunks: Box::default(),
        },
    };
    archive.entry(&entry).map_err(WriteError::Entry)?;
    document.write(&mut archive).map_err(WriteError::Out)?;
    let member = archive.finish().map_err(WriteError::Entry)?;
    let member = member.into_inner();
    let member = member.map_err(|error| WriteError::Out(error.into_error()))?;
    let counted = member.encoder.finish().map_err(WriteError::Out)?;
    Ok((counted.bytes, counted.out))
}

struct Member<'a, W: Write> {
    encoder: GzEncoder<Counted<W>>,
    decoded: &'a mut HashingWriter<Sink>,
}

impl<W: Write> Write for Member<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.encoder.write_all(bytes)?;
        self.decoded.write_all(bytes)?;
        Ok(bytes.len())
    }

    /// Compressed streams are not flushed but by their end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Counted<W> {
    out: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
