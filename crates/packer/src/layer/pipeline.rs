//! The threads of a layer, started and joined.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crossbeam_channel::bounded;
use draught_rafs::blob::BlobOptions;
use draught_tree::{Entry, Tree};

use super::chunker::{Chunker, Content, Counts};
use super::decode::{self, Decoded};
use super::error::PackLayerError;
use super::input::LayerInput;
use super::jobs::{self, Job};
use super::own_tree::OwnTree;
use super::writer::{self, Written};
use crate::archive::is_of_estargz;
use crate::cache::RecordWriter;
use crate::known::Known;
use crate::options::PackOptions;
use crate::progress::{LayerReport, Progress};

/// What a layer is packed into.
pub(crate) struct Layer<'a> {
    /// Its number, from 0.
    pub(crate) number: usize,
    pub(crate) options: &'a PackOptions,
    pub(crate) blob: BlobOptions,
    pub(crate) tree: &'a mut Tree,
    pub(crate) own: &'a mut OwnTree,
    pub(crate) record: &'a mut Option<RecordWriter>,
    pub(crate) known: &'a mut Known,
    pub(crate) progress: &'a dyn Progress,
}

/// An archive as content.
pub(crate) struct Archive<R> {
    reader: Option<draught_tar::Reader<R>>,
    is_estargz: bool,
}

impl<R: Read> Archive<R> {
    /// What `reader` gives. Of eStargz, what belongs to the format is left out.
    pub(crate) fn new(reader: R, limits: draught_tar::Limits, is_estargz: bool) -> Self {
        Self {
            reader: Some(draught_tar::Reader::new(reader, limits)),
            is_estargz,
        }
    }

    /// Reads the stream to its end; what goes wrong there the decoder knows better.
    fn drain(&mut self) {
        if let Some(reader) = self.reader.take() {
            drop(reader.finish());
        }
    }
}

impl<R: Read> Content for Archive<R> {
    fn next_entry(&mut self) -> Result<Option<Entry>, PackLayerError> {
        let failed = |source| PackLayerError::Tar { source };
        let Some(reader) = &mut self.reader else {
            return Ok(None);
        };
        let mut entry = reader.next_entry().map_err(failed)?;
        while self.is_estargz && entry.as_ref().is_some_and(|it| is_of_estargz(&it.path)) {
            entry = reader.next_entry().map_err(failed)?;
        }
        if entry.is_none()
            && let Some(reader) = self.reader.take()
        {
            // What follows the archive's end belongs to the digest.
            reader.finish().map_err(failed)?;
        }
        Ok(entry)
    }

    fn read_data(&mut self, out: &mut [u8]) -> Result<usize, PackLayerError> {
        match &mut self.reader {
            Some(reader) => reader
                .read_data(out)
                .map_err(|source| PackLayerError::Tar { source }),
            None => Ok(0),
        }
    }
}

/// Packs a layer that comes as a stream. After an error the tree is of no more use.
pub(crate) fn pack_archive<R: Read + Send>(
    input: LayerInput<R>,
    layer: Layer<'_>,
) -> Result<(LayerReport, Option<Written>), PackLayerError> {
    let (number, progress) = (layer.number, layer.progress);
    let is_estargz = input.is_estargz;
    let limits = layer.options.layer_limits;
    let tar_limits = layer.options.tar_limits;
    let cancelled = Arc::new(AtomicBool::new(false));
    let (pipe_writer, pipe_reader) = decode::pipe();
    thread::scope(|scope| {
        let stop = Arc::clone(&cancelled);
        let decoder =
            scope.spawn(move || decode::decode(input, limits, pipe_writer, number, progress, stop));
        let mut archive = Archive::new(pipe_reader, tar_limits, is_estargz);
        let packed = pack_content(&mut archive, layer);
        if let Err(PackLayerError::Tar { .. } | PackLayerError::Apply { .. }) = packed {
            // Bytes that are not those of the layer look like a bad archive: read on to know.
            archive.drain();
        } else if packed.is_err() {
            cancelled.store(true, Ordering::Relaxed);
        }
        // Hang up, so that a decoder that waits for a buffer ends.
        drop(archive);
        let decoded = join(decoder);
        finish(decoded, packed)
    })
}

/// Whose error counts: where the stream is not what it should be, the archive can't be either.
fn finish(
    decoded: Result<Decoded, PackLayerError>,
    packed: Result<(LayerReport, Option<Written>), PackLayerError>,
) -> Result<(LayerReport, Option<Written>), PackLayerError> {
    match (decoded, packed) {
        (Ok(decoded), Ok((mut report, written))) => {
            report.digest = Some(decoded.digest);
            report.diff_id = Some(decoded.diff_id);
            report.stored_bytes = decoded.stored_bytes;
            report.decoded_bytes = decoded.decoded_bytes;
            Ok((report, written))
        }
        (Ok(_) | Err(PackLayerError::Aborted), Err(error)) | (Err(error), _) => Err(error),
    }
}

/// Packs what an archive or a directory holds.
pub(crate) fn pack_content(
    content: &mut impl Content,
    layer: Layer<'_>,
) -> Result<(LayerReport, Option<Written>), PackLayerError> {
    let Layer {
        options,
        blob,
        tree,
        own,
        record,
        known,
        ..
    } = layer;
    let first = u32::try_from(tree.map.chunks.len()).map_err(|_| PackLayerError::TooManyChunks)?;
    let threads = options.threads.get();
    let chunk_bytes = usize::try_from(options.chunk_bytes).unwrap_or(usize::MAX);
    let count = jobs::count(threads, chunk_bytes);
    let (free_tx, free_rx) = bounded(count);
    let (jobs_tx, jobs_rx) = bounded(count);
    let (done_tx, done_rx) = bounded(count);
    for _ in 0..count {
        // There is room for all of them.
        drop(free_tx.try_send(Job::default()));
    }
    let (compression, level) = (options.compression, options.level);
    let (counts, written) = thread::scope(|scope| {
        for _ in 0..threads {
            let (jobs, done) = (jobs_rx.clone(), done_tx.clone());
            scope.spawn(move || jobs::work(compression, level, &jobs, &done));
        }
        drop((jobs_rx, done_tx));
        let dir = options.spool_dir.as_path();
        let writer = scope.spawn(move || writer::write(blob, dir, &done_rx, &free_tx));
        let mut chunker = Chunker::new(options, known, first, free_rx, jobs_tx);
        let cut = chunker.run(tree, own, record, content);
        let counts = chunker.counts;
        // Hang up, so that the workers end, and the writer after them.
        drop(chunker);
        let written = join(writer);
        let outcome = match (cut, written) {
            (Ok(()), Ok(written)) => Ok(written),
            (Ok(()) | Err(PackLayerError::Aborted), Err(error)) => Err(error),
            (Err(error), _) => Err(error),
        };
        (counts, outcome)
    });
    Ok((report(&counts), written?))
}

fn report(counts: &Counts) -> LayerReport {
    LayerReport {
        stored_bytes: counts.file_bytes,
        digest: None,
        diff_id: None,
        decoded_bytes: counts.file_bytes,
        entries: counts.entries,
        chunks: counts.chunks,
        new_chunks: counts.new_chunks,
        blob_bytes: 0,
        cached: false,
    }
}

/// A thread's outcome; if it panicked, so do we.
pub(crate) fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    match thread.join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
