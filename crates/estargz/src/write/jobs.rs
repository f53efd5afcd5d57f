//! Jobs: members that are compressed together, one thread each.

use crossbeam_channel::{Receiver, Sender};
use draught_digest::Digest;
use libdeflater::{CompressionLvl, Compressor};

/// A job is handed on once it has so many bytes: then the queues cost nothing, and the threads still share the
/// work of a small layer.
pub(super) const JOB_BYTES: usize = 256 << 10;

/// Bytes that all jobs together may hold, as far as chunks and threads allow.
const JOBS_BYTES_MAX: usize = 40 << 20;

/// How many jobs there are: enough for every thread to have one and for one to wait for each, one that is filled
/// and one that is written; fewer when chunks are so large that memory sets the limit.
pub(super) fn count(threads: usize, chunk_bytes: usize) -> usize {
    // Before and after compression.
    let job_bytes = chunk_bytes.saturating_add(JOB_BYTES).saturating_mul(2);
    let wanted = threads.saturating_mul(2).saturating_add(2);
    wanted
        .min(JOBS_BYTES_MAX / job_bytes)
        .max(threads.saturating_add(2))
}

/// A gzip member.
#[derive(Debug)]
pub(super) struct Member {
    /// Where in the job's input it begins; it ends where the next one begins.
    pub(super) start: usize,
    /// Set by the worker.
    pub(super) stored_bytes: usize,
}

/// A chunk.
#[derive(Debug)]
pub(super) struct Piece {
    /// Its member's number in the job.
    pub(super) member: usize,
    /// Where in the job's input it begins.
    pub(super) start: usize,
    pub(super) bytes: usize,
    /// Set by the worker.
    pub(super) digest: Option<Digest>,
}

/// Some members, one after the other, before and after compression.
#[derive(Debug, Default)]
pub(super) struct Job {
    /// Their order.
    pub(super) sequence: u64,
    pub(super) input: Vec<u8>,
    pub(super) members: Vec<Member>,
    pub(super) pieces: Vec<Piece>,
    pub(super) output: Vec<u8>,
}

impl Job {
    pub(super) fn clear(&mut self) {
        self.input.clear();
        self.members.clear();
        self.pieces.clear();
        self.output.clear();
    }

    fn run(&mut self, compressor: &mut Compressor, room: &mut Vec<u8>) {
        let mut end = self.input.len();
        let ends: Vec<usize> = self
            .members
            .iter()
            .rev()
            .map(|member| std::mem::replace(&mut end, member.start))
            .collect();
        for (member, end) in self.members.iter_mut().zip(ends.into_iter().rev()) {
            let data = self.input.get(member.start..end).unwrap_or_default();
            let bound = compressor.gzip_compress_bound(data.len());
            if room.len() < bound {
                room.resize(bound, 0);
            }
            let stored = compressor
                .gzip_compress(data, room)
                .expect("there is room for whatever comes out");
            member.stored_bytes = stored;
            self.output
                .extend_from_slice(room.get(..stored).unwrap_or_default());
        }
        for piece in &mut self.pieces {
            let data = self.input.get(piece.start..piece.start + piece.bytes);
            piece.digest = data.map(Digest::sha256);
        }
    }
}

/// A worker: compresses jobs as long as there are any.
pub(super) fn work(level: u32, jobs: &Receiver<Job>, done: &Sender<Job>) {
    let level = i32::try_from(level).ok();
    let level = level.and_then(|level| CompressionLvl::new(level).ok());
    let mut compressor = Compressor::new(level.unwrap_or_default());
    let mut room = Vec::new();
    while let Ok(mut job) = jobs.recv() {
        job.run(&mut compressor, &mut room);
        if done.send(job).is_err() {
            return;
        }
    }
}
