//! Streams that are counted and digested on their way.

use std::io::{self, Read, Write};

use draught_digest::{Algorithm, Digest, Hasher};

/// Hands bytes through from a reader, and remembers their digest and number.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    bytes: u64,
}

impl<R> HashingReader<R> {
    /// Nothing has been read yet.
    pub fn new(inner: R, algorithm: Algorithm) -> Self {
        Self {
            inner,
            hasher: Hasher::new(algorithm),
            bytes: 0,
        }
    }

    /// How many bytes have been read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The reader inside.
    pub fn inner(&self) -> &R {
        &self.inner
    }

    /// The digest and the number of all bytes read, and the reader.
    pub fn finish(self) -> (Digest, u64, R) {
        (self.hasher.finish(), self.bytes, self.inner)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        self.bytes = self.bytes.saturating_add(read as u64);
        Ok(read)
    }
}

/// Hands bytes through to a writer, and remembers their digest and number.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
    bytes: u64,
}

impl<W> HashingWriter<W> {
    /// Nothing has been written yet.
    pub fn new(inner: W, algorithm: Algorithm) -> Self {
        Self {
            inner,
            hasher: Hasher::new(algorithm),
            bytes: 0,
        }
    }

    /// How many bytes have been written.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The state of the digest so far.
    pub fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// The digest and the number of all bytes written, and the writer.
    pub fn finish(self) -> (Digest, u64, W) {
        (self.hasher.finish(), self.bytes, self.inner)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher
            .update(buffer.get(..written).unwrap_or_default());
        self.bytes = self.bytes.saturating_add(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
