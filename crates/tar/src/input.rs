//! Buffered reading that knows where in the archive it is.

use std::io::{self, Read};

use crate::BLOCK_BYTES;
use crate::error::TarError;

/// Bytes read at a time. Large enough that a call costs nothing beside the copy, small enough for
/// the second-level cache.
const BUFFER_BYTES: usize = 128 << 10;

pub(crate) struct Input<R> {
    source: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Position in the archive of what is at `start`.
    offset: u64,
}

fn read<R: Read>(source: &mut R, out: &mut [u8], offset: u64) -> Result<usize, TarError> {
    loop {
        match source.read(out) {
            // A reader that claims more than it was given room for is broken: don't believe it.
            Ok(read) => return Ok(read.min(out.len())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(TarError::Io { offset, source }),
        }
    }
}

impl<R: Read> Input<R> {
    pub(crate) fn new(source: R) -> Self {
        Self {
            source,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            offset: 0,
        }
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn into_source(self) -> R {
        self.source
    }

    fn buffered(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// What is buffered, at least a byte of it but at the end, where it is empty.
    fn fill(&mut self) -> Result<(), TarError> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            self.end = read(&mut self.source, &mut self.buffer, self.offset)?;
        }
        Ok(())
    }

    fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
    }

    /// How many bytes can be taken without reading; 0 at the end only.
    pub(crate) fn ready(&mut self) -> Result<usize, TarError> {
        self.fill()?;
        Ok(self.end - self.start)
    }

    /// The next bytes, `max` at most, without a copy; none at the end.
    pub(crate) fn take(&mut self, max: usize) -> Result<&[u8], TarError> {
        self.fill()?;
        let from = self.start;
        let bytes = max.min(self.end - self.start);
        self.consume(bytes);
        Ok(self.buffer.get(from..from + bytes).unwrap_or_default())
    }

    /// Reads into `out`; 0 at the end. A read as large as the buffer goes around it.
    pub(crate) fn read(&mut self, out: &mut [u8]) -> Result<usize, TarError> {
        if self.start == self.end && out.len() >= self.buffer.len() {
            let bytes = read(&mut self.source, out, self.offset)?;
            self.offset += bytes as u64;
            return Ok(bytes);
        }
        let taken = self.take(out.len())?;
        let bytes = taken.len();
        if let Some(out) = out.get_mut(..bytes) {
            out.copy_from_slice(taken);
        }
        Ok(bytes)
    }

    /// Reads all of `out`, or up to the end; how much was read.
    pub(crate) fn read_full(&mut self, out: &mut [u8]) -> Result<usize, TarError> {
        let mut filled = 0;
        while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read(rest)? {
                0 => break,
                bytes => filled += bytes,
            }
        }
        Ok(filled)
    }

    /// The next block; `None` at the end.
    pub(crate) fn block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>, TarError> {
        let mut block = [0; BLOCK_BYTES];
        match self.read_full(&mut block)? {
            0 => Ok(None),
            BLOCK_BYTES => Ok(Some(block)),
            _ => Err(self.truncated("a header")),
        }
    }

    /// Passes over `bytes`, or up to the end; how much that was.
    pub(crate) fn skip(&mut self, bytes: u64) -> Result<u64, TarError> {
        let mut left = bytes;
        while left > 0 {
            let max = usize::try_from(left).unwrap_or(usize::MAX);
            match self.take(max)?.len() {
                0 => break,
                taken => left -= taken as u64,
            }
        }
        Ok(bytes - left)
    }

    pub(crate) fn truncated(&self, what: &'static str) -> TarError {
        TarError::Truncated {
            offset: self.offset + self.buffered().len() as u64,
            what,
        }
    }
}
