//! The last thread: puts jobs back in order and writes them.

use std::collections::BTreeMap;
use std::io::{self, Sink, Write};

use crossbeam_channel::{Receiver, Sender};
use draught_codec::HashingWriter;
use draught_digest::{Algorithm, Digest};

use super::error::WriteError;
use super::jobs::Job;

/// Where a chunk is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Where its member begins in the layer.
    pub(super) offset: u64,
    /// Where in the decoded member it begins.
    pub(super) inner: u64,
    pub(super) digest: Digest,
}

/// A layer that is being written.
pub(super) struct Output<W> {
    pub(super) out: W,
    /// Takes what the layer decodes to.
    pub(super) decoded: HashingWriter<Sink>,
    pub(super) stored_bytes: u64,
    pub(super) members: u64,
    /// Of all chunks, in their order.
    pub(super) places: Vec<Place>,
}

impl<W: Write> Output<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            decoded: HashingWriter::new(io::sink(), Algorithm::Sha256),
            stored_bytes: 0,
            members: 0,
            places: Vec::new(),
        }
    }

    /// Writes jobs in their order and gives them back, until there are no more.
    pub(super) fn run(
        mut self,
        done: &Receiver<Job>,
        free: &Sender<Job>,
    ) -> Result<Self, WriteError> {
        let mut early: BTreeMap<u64, Job> = BTreeMap::new();
        let mut next = 0;
        while let Ok(job) = done.recv() {
            early.insert(job.sequence, job);
            while let Some(mut job) = early.remove(&next) {
                next += 1;
                self.append(&job).map_err(WriteError::Out)?;
                job.clear();
                // The cutter may be gone already; then nobody needs the job.
                drop(free.try_send(job));
            }
        }
        Ok(self)
    }

    fn append(&mut self, job: &Job) -> io::Result<()> {
        self.decoded.write_all(&job.input)?;
        self.out.write_all(&job.output)?;
        let mut pieces = job.pieces.iter().peekable();
        for (number, member) in job.members.iter().enumerate() {
            while let Some(piece) = pieces.next_if(|piece| piece.member == number) {
                let Some(digest) = piece.digest else {
                    continue;
                };
                self.places.push(Place {
                    offset: self.stored_bytes,
                    inner: piece.start.saturating_sub(member.start) as u64,
                    digest,
                });
            }
            self.stored_bytes += member.stored_bytes as u64;
            self.members += 1;
        }
        Ok(())
    }
}
