//! The first thread: reads, checks and decodes the stream.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use draught_codec::{LayerDecoder, LayerError, LayerKind, LayerLimits};
use draught_digest::{Algorithm, Digest, Hasher};

use super::error::PackLayerError;
use super::input::{Checked, LayerInput};
use crate::progress::Progress;

/// Bytes of archive in a buffer, and how many buffers there are: enough for the decoder to run ahead
/// while the chunker waits for a free job, little enough to stay in the cache.
const BUFFER_BYTES: usize = 256 << 10;
const BUFFERS: usize = 6;

/// Decoded bytes on their way from the decoder to the parser. Buffers go round.
pub(crate) struct PipeWriter {
    full: Sender<Buffer>,
    empty: Receiver<Vec<u8>>,
}

/// The reading end. At the end of the stream it gives 0; if the writer ended before, an error.
pub(crate) struct PipeReader {
    full: Receiver<Buffer>,
    empty: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    filled: usize,
    ended: bool,
}

enum Buffer {
    Data(Vec<u8>, usize),
    End,
}

pub(crate) fn pipe() -> (PipeWriter, PipeReader) {
    let (full_tx, full_rx) = bounded(BUFFERS);
    let (empty_tx, empty_rx) = bounded(BUFFERS);
    for _ in 1..BUFFERS {
        // There is room for all of them.
        drop(empty_tx.try_send(Vec::new()));
    }
    let writer = PipeWriter {
        full: full_tx,
        empty: empty_rx,
    };
    let reader = PipeReader {
        full: full_rx,
        empty: empty_tx,
        current: Vec::new(),
        at: 0,
        filled: 0,
        ended: false,
    };
    (writer, reader)
}

impl PipeWriter {
    /// Hands on a buffer; `false` when nobody reads any more.
    fn send(&self, buffer: Vec<u8>, filled: usize) -> bool {
        self.full.send(Buffer::Data(buffer, filled)).is_ok()
    }

    /// Says that the stream has ended as it should.
    pub(crate) fn end(self) {
        // Who does not read any more need not know.
        drop(self.full.send(Buffer::End));
    }
}

/// For what is written in large pieces.
impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let mut buffer = self.empty.recv().map_err(|_| gone())?;
        let filled = bytes.len().min(BUFFER_BYTES);
        buffer.clear();
        buffer.extend_from_slice(bytes.get(..filled).unwrap_or_default());
        if self.send(buffer, filled) {
            Ok(filled)
        } else {
            Err(gone())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for PipeReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.filled {
            if self.ended || out.is_empty() {
                return Ok(0);
            }
            match self.full.recv() {
                Ok(Buffer::Data(buffer, filled)) => {
                    let old = std::mem::replace(&mut self.current, buffer);
                    (self.at, self.filled) = (0, filled);
                    // The writer is gone when the stream has ended; then nobody needs the buffer.
                    drop(self.empty.try_send(old));
                }
                Ok(Buffer::End) => self.ended = true,
                Err(_) => {
                    let message = "the layer's stream could not be read to its end";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
                }
            }
        }
        let ready = self.current.get(self.at..self.filled).unwrap_or_default();
        let bytes = ready.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..bytes), ready.get(..bytes)) {
            to.copy_from_slice(from);
        }
        self.at += bytes;
        Ok(bytes)
    }
}

/// A stream that was read to its end and is what it should be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoded {
    pub(crate) digest: Digest,
    pub(crate) stored_bytes: u64,
    pub(crate) diff_id: Digest,
    pub(crate) decoded_bytes: u64,
}

/// Decodes a layer into the pipe; ends early if nobody reads it any more.
pub(crate) fn decode<R: Read>(
    input: LayerInput<R>,
    limits: LayerLimits,
    pipe: PipeWriter,
    layer: usize,
    progress: &dyn Progress,
    cancelled: Arc<AtomicBool>,
) -> Result<Decoded, PackLayerError> {
    let expected_bytes = input.stored_bytes;
    let (digest, diff_id) = (input.digest, input.diff_id);
    let given_up = Arc::clone(&cancelled);
    let mut checked = Checked::new(input.reader, expected_bytes, layer, progress, cancelled);
    let outcome = run(&mut checked, limits, &pipe);
    if given_up.load(Ordering::Relaxed) {
        return Err(PackLayerError::Aborted);
    }
    if let Some(expected_bytes) = expected_bytes
        && checked.ended
        && checked.bytes != expected_bytes
    {
        return Err(PackLayerError::Size {
            expected_bytes,
            got_bytes: checked.bytes,
        });
    }
    let got = checked.digest();
    if checked.ended
        && let Some(expected) = digest
        && got != expected
    {
        return Err(PackLayerError::Digest { expected, got });
    }
    let (kind, hasher, decoded_bytes) = outcome?;
    let got_diff_id = match kind {
        LayerKind::Tar => got,
        LayerKind::TarGzip | LayerKind::TarZstd => hasher.finish(),
    };
    if let Some(expected) = diff_id
        && expected != got_diff_id
    {
        return Err(PackLayerError::DiffId {
            expected,
            got: got_diff_id,
        });
    }
    // Only now: whoever reads the pipe learns of its end when all is verified.
    pipe.end();
    Ok(Decoded {
        digest: got,
        stored_bytes: checked.bytes,
        diff_id: got_diff_id,
        decoded_bytes,
    })
}

fn run<R: Read>(
    checked: &mut Checked<'_, R>,
    limits: LayerLimits,
    pipe: &PipeWriter,
) -> Result<(LayerKind, Hasher, u64), PackLayerError> {
    let failed = |source: LayerError| PackLayerError::Decode { source };
    let mut decoder = LayerDecoder::new(checked, limits).map_err(failed)?;
    let kind = decoder.kind();
    let mut hasher = Hasher::new(Algorithm::Sha256);
    loop {
        let Ok(mut buffer) = pipe.empty.recv() else {
            return Err(PackLayerError::Aborted);
        };
        buffer.resize(BUFFER_BYTES, 0);
        let mut filled = 0;
        while let Some(room) = buffer.get_mut(filled..)
            && !room.is_empty()
        {
            let read = decoder.decode(room).map_err(failed)?;
            if read == 0 {
                break;
            }
            filled += read;
        }
        if filled == 0 {
            return Ok((kind, hasher, decoder.decoded_bytes()));
        }
        if kind != LayerKind::Tar {
            hasher.update(buffer.get(..filled).unwrap_or_default());
        }
        if !pipe.send(buffer, filled) {
            return Err(PackLayerError::Aborted);
        }
    }
}
