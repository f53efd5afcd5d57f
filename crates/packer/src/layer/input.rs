//! Layers as they come in.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use draught_digest::{Algorithm, Digest, Hasher};

use crate::progress::Progress;

/// A layer: its bytes, and what is known of them beforehand. All that is known is checked.
#[derive(Debug)]
pub struct LayerInput<R> {
    /// The layer as the registry has it: tar, tar+gzip or tar+zstd.
    pub reader: R,
    /// Its digest, SHA-256.
    pub digest: Option<Digest>,
    /// Its size in bytes.
    pub stored_bytes: Option<u64>,
    /// The digest of its archive.
    pub diff_id: Option<Digest>,
    /// Whether it is eStargz: then its table of contents and its marks are no part of the image.
    pub is_estargz: bool,
}

impl<R> LayerInput<R> {
    /// A layer of which nothing is known.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            digest: None,
            stored_bytes: None,
            diff_id: None,
            is_estargz: false,
        }
    }
}

/// Counts and digests what is read, and reads no more than it should.
pub(super) struct Checked<'a, R> {
    reader: R,
    hasher: Hasher,
    pub(super) bytes: u64,
    bytes_max: u64,
    /// The stream has ended, or has more than it should.
    pub(super) ended: bool,
    layer: usize,
    progress: &'a dyn Progress,
    cancelled: Arc<AtomicBool>,
}

impl<'a, R> Checked<'a, R> {
    pub(super) fn new(
        reader: R,
        bytes_max: Option<u64>,
        layer: usize,
        progress: &'a dyn Progress,
        cancelled: Arc<AtomicBool>,
    ) -> Self {
        Self {
            reader,
            hasher: Hasher::new(Algorithm::Sha256),
            bytes: 0,
            bytes_max: bytes_max.unwrap_or(u64::MAX),
            ended: false,
            layer,
            progress,
            cancelled,
        }
    }

    pub(super) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }
}

impl<R: Read> Read for Checked<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("packing was given up"));
        }
        let read = self.reader.read(buffer)?;
        self.bytes = self.bytes.saturating_add(read as u64);
        if self.bytes > self.bytes_max {
            // What is too much is not handed on: the caller sees why from the count.
            self.ended = true;
            return Ok(0);
        }
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        self.progress.layer_read(self.layer, read as u64);
        if read == 0 && !buffer.is_empty() {
            self.ended = true;
        }
        Ok(read)
    }
}
