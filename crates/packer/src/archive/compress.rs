//! A stream, compressed in pieces by several threads.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use draught_codec::{PieceEncoder, PieceKind};

use crate::layer::PackLayerError;
use crate::spool::{Spool, Spooled};

/// Bytes of a stream that are compressed by themselves. Gzip looks 32 KiB back, and loses nothing from there
/// on; zstd looks back megabytes.
const GZIP_PIECE_BYTES: usize = 1 << 20;
const ZSTD_PIECE_BYTES: usize = 4 << 20;

/// Bytes that all pieces together may hold, before and after compression.
const PIECES_BYTES_MAX: usize = 48 << 20;

/// A piece on its way.
#[derive(Default)]
struct Piece {
    sequence: u64,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// The writing end.
pub(crate) struct Compressor {
    piece_bytes: usize,
    free: Receiver<Piece>,
    jobs: Sender<Piece>,
    piece: Option<Piece>,
    sequence: u64,
}

impl Compressor {
    /// Hands the piece on.
    fn send(&mut self) -> io::Result<()> {
        match self.piece.take() {
            Some(piece) => self.jobs.send(piece).map_err(|_| gone()),
            None => Ok(()),
        }
    }
}

/// The other end failed, and says itself why.
fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "compression was given up")
}

impl Write for Compressor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = match &mut self.piece {
            Some(piece) => piece,
            none => {
                let mut piece = self.free.recv().map_err(|_| gone())?;
                piece.input.clear();
                piece.sequence = self.sequence;
                self.sequence += 1;
                none.insert(piece)
            }
        };
        let room = self.piece_bytes.saturating_sub(piece.input.len());
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        piece.input.extend_from_slice(taken);
        if piece.input.len() >= self.piece_bytes {
            self.send()?;
        }
        Ok(taken.len())
    }

    /// Where pieces end depends on the stream alone: nothing is handed on before its time.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses what `produce` writes into a spool file.
pub(crate) fn compress<T: Send>(
    kind: PieceKind,
    threads: NonZeroUsize,
    dir: &Path,
    produce: impl FnOnce(&mut Compressor) -> Result<T, PackLayerError>,
) -> Result<(T, Spooled), PackLayerError> {
    let piece_bytes = match kind {
        PieceKind::Gzip { .. } => GZIP_PIECE_BYTES,
        PieceKind::Zstd { .. } => ZSTD_PIECE_BYTES,
    };
    let count = (threads.get().saturating_mul(2).saturating_add(1))
        .min(PIECES_BYTES_MAX / (2 * piece_bytes))
        .max(2);
    let (free_tx, free_rx) = bounded(count);
    let (jobs_tx, jobs_rx) = bounded(count);
    let (done_tx, done_rx) = bounded(count);
    for _ in 0..count {
        // There is room for all of them.
        drop(free_tx.try_send(Piece::default()));
    }
    thread::scope(|scope| {
        for _ in 0..threads.get() {
            let (jobs, done) = (jobs_rx.clone(), done_tx.clone());
            scope.spawn(move || work(kind, &jobs, &done));
        }
        drop((jobs_rx, done_tx));
        let writer = scope.spawn(move || write(dir, &done_rx, &free_tx));
        let mut compressor = Compressor {
            piece_bytes,
            free: free_rx,
            jobs: jobs_tx,
            piece: None,
            sequence: 0,
        };
        let produced = produce(&mut compressor);
        let sent = compressor.send();
        // Hang up, so that the workers end, and the writer after them.
        drop(compressor);
        let written = match writer.join() {
            Ok(written) => written,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        match (produced, sent, written) {
            // What the others saw of that is that nobody took what they had.
            (_, _, Err(error @ PackLayerError::Spool { .. })) | (Err(error), _, _) => Err(error),
            (Ok(_), _, Err(error)) => Err(error),
            (Ok(_), Err(_), Ok(_)) => Err(PackLayerError::Aborted),
            (Ok(produced), Ok(()), Ok(spooled)) => Ok((produced, spooled)),
        }
    })
}

/// A worker: compresses pieces as long as there are any.
fn work(kind: PieceKind, jobs: &Receiver<Piece>, done: &Sender<io::Result<Piece>>) {
    let mut encoder = match PieceEncoder::new(kind) {
        Ok(encoder) => encoder,
        Err(error) => {
            drop(done.send(Err(error)));
            return;
        }
    };
    while let Ok(mut piece) = jobs.recv() {
        piece.output.clear();
        let encoded = encoder.encode(&piece.input, &mut piece.output);
        if done.send(encoded.map(|()| piece)).is_err() {
            return;
        }
    }
}

/// Writes pieces in their order and gives them back.
fn write(
    dir: &Path,
    done: &Receiver<io::Result<Piece>>,
    free: &Sender<Piece>,
) -> Result<Spooled, PackLayerError> {
    let failed = |source| PackLayerError::Spool { source };
    let mut spool = Spool::new(dir).map_err(failed)?;
    let mut early: BTreeMap<u64, Piece> = BTreeMap::new();
    let mut next = 0;
    while let Ok(piece) = done.recv() {
        let piece = piece.map_err(failed)?;
        early.insert(piece.sequence, piece);
        while let Some(piece) = early.remove(&next) {
            next += 1;
            spool.append(&piece.output).map_err(failed)?;
            // Who fills pieces may be gone already; then nobody needs it.
            drop(free.try_send(piece));
        }
    }
    if early.is_empty() {
        Ok(spool.finish())
    } else {
        Err(PackLayerError::Aborted)
    }
}
