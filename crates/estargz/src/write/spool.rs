//! The archive, until it is put in order.

use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};

/// Where an entry is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) headers_bytes: u64,
}

/// Something that can be written, and read again.
#[derive(Debug)]
pub(super) struct Spool<S> {
    inner: S,
    bytes: u64,
    /// Zeros that are not written yet.
    hole_bytes: u64,
}

impl<S: Read + Write + Seek> Spool<S> {
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            bytes: 0,
            hole_bytes: 0,
        }
    }

    pub(super) fn position(&self) -> u64 {
        self.bytes
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.hole_bytes > 0 {
            // What nobody wrote reads as zeros.
            let end = self.bytes;
            self.inner.seek(SeekFrom::Start(end))?;
            self.hole_bytes = 0;
        }
        self.inner.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Appends zeros that take no space.
    pub(super) fn skip(&mut self, bytes: u64) {
        self.hole_bytes += bytes;
        self.bytes += bytes;
    }

    /// All is written.
    pub(super) fn finish(mut self) -> io::Result<Spooled<S>> {
        if self.hole_bytes > 0 {
            self.inner
                .seek(SeekFrom::Start(self.bytes.saturating_sub(1)))?;
            self.inner.write_all(&[0])?;
        }
        self.inner.flush()?;
        self.inner.seek(SeekFrom::Start(0))?;
        Ok(Spooled {
            inner: BufReader::with_capacity(READ_BYTES, self.inner),
            at: 0,
        })
    }
}

/// Bytes read at once.
const READ_BYTES: usize = 128 << 10;

/// What was written.
#[derive(Debug)]
pub(super) struct Spooled<S: Read> {
    inner: BufReader<S>,
    at: u64,
}

impl<S: Read + Seek> Spooled<S> {
    /// Reads on from here.
    pub(super) fn seek(&mut self, to: u64) -> io::Result<()> {
        if to != self.at {
            self.inner.seek(SeekFrom::Start(to))?;
            self.at = to;
        }
        Ok(())
    }

    pub(super) fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.at += read as u64;
        Ok(read)
    }

    pub(super) fn read_exact(&mut self, bytes: u64) -> io::Result<Vec<u8>> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut out = vec![0; bytes];
        self.inner.read_exact(&mut out)?;
        self.at += bytes as u64;
        Ok(out)
    }
}
