//! Jobs: runs of chunks that are compressed together, one thread each.

use crossbeam_channel::{Receiver, Sender};
use draught_codec::{EncodeError, Encoder};
use draught_digest::Digest;
use draught_tree::Compression;

/// A job is handed on once it has so many bytes: then the queues cost nothing, and the threads still
/// share the work of a small layer.
pub(super) const JOB_BYTES: usize = 256 << 10;

/// Bytes that all jobs together may hold, as far as single chunks allow.
const JOBS_BYTES_MAX: usize = 24 << 20;

/// How many jobs there are: enough for every thread to have one and for one to wait for each, one
/// that is filled and one that is written; fewer when chunks are so large that memory sets the limit.
pub(super) fn count(threads: usize, chunk_bytes: usize) -> usize {
    // Before and after compression.
    let job_bytes = chunk_bytes.max(JOB_BYTES).saturating_mul(2);
    let wanted = threads.saturating_mul(2).saturating_add(2);
    wanted.min(JOBS_BYTES_MAX / job_bytes).max(2)
}

/// An extent: a range of the job's input, and the chunks that it is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) bytes: usize,
    pub(super) chunks: usize,
    /// Set by the worker.
    pub(super) stored_bytes: usize,
    /// Set by the worker.
    pub(super) compression: Compression,
}

/// Some extents of a blob, one after the other, before and after compression.
#[derive(Debug, Default)]
pub(super) struct Job {
    /// Their order.
    pub(super) sequence: u64,
    pub(super) input: Vec<u8>,
    /// How much of `input` is used.
    pub(super) filled: usize,
    pub(super) chunks: Vec<(Digest, u32)>,
    pub(super) parts: Vec<Part>,
    pub(super) output: Vec<u8>,
}

impl Job {
    pub(super) fn clear(&mut self) {
        self.filled = 0;
        self.chunks.clear();
        self.parts.clear();
        self.output.clear();
    }

    /// Compresses every extent.
    fn run(&mut self, encoder: &mut Encoder) -> Result<(), EncodeError> {
        let mut at = 0;
        for part in &mut self.parts {
            let data = self.input.get(at..at + part.bytes).unwrap_or_default();
            let before = self.output.len();
            part.compression = encoder.encode(data, &mut self.output)?;
            part.stored_bytes = self.output.len() - before;
            at += part.bytes;
        }
        Ok(())
    }
}

/// A worker: compresses jobs as long as there are any.
pub(super) fn work(
    compression: Compression,
    level: i32,
    jobs: &Receiver<Job>,
    done: &Sender<Result<Job, EncodeError>>,
) {
    let mut encoder = match Encoder::new(compression, level) {
        Ok(encoder) => encoder,
        Err(error) => {
            drop(done.send(Err(error)));
            return;
        }
    };
    while let Ok(mut job) = jobs.recv() {
        let outcome = job.run(&mut encoder).map(|()| job);
        if done.send(outcome).is_err() {
            return;
        }
    }
}
