//! Where members begin.

use std::io;

use crossbeam_channel::{Receiver, Sender};
use draught_digest::{Algorithm, Digest, Hasher};

use super::error::WriteError;
use super::jobs::{JOB_BYTES, Job, Member, Piece};

/// Bytes of headers after which a member ends although no chunk begins: a million links must not be one member,
/// which is in memory as a whole.
const HEADERS_BYTES_MAX: usize = 1 << 20;

/// Why cutting ended early.
#[derive(Debug)]
pub(super) enum Stopped {
    Failed(WriteError),
    /// Whoever writes has stopped, and knows why.
    HungUp,
}

impl From<WriteError> for Stopped {
    fn from(error: WriteError) -> Self {
        Self::Failed(error)
    }
}

/// Where a file's content comes from: fills a part of the buffer; 0 if there is no more.
pub(super) type Content<'a> = &'a mut dyn FnMut(&mut [u8]) -> Result<usize, WriteError>;

/// Cuts the archive that it is given, headers and contents in turn, into members, and those into jobs.
pub(super) struct Cutter {
    chunk_bytes: usize,
    pack_bytes: usize,
    free: Receiver<Job>,
    jobs: Sender<Job>,
    job: Option<Job>,
    sequence: u64,
    /// Where in the job the current member begins.
    member: usize,
    /// Where in the job the headers begin that follow the last chunk.
    headers: usize,
    /// Whether the member begins with a chunk, as it must for others to follow in it.
    has_chunk: bool,
    pub(super) chunks: u64,
}

impl Cutter {
    pub(super) fn new(
        chunk_bytes: usize,
        pack_bytes: usize,
        free: Receiver<Job>,
        jobs: Sender<Job>,
    ) -> Self {
        Self {
            chunk_bytes,
            pack_bytes,
            free,
            jobs,
            job: None,
            sequence: 0,
            member: 0,
            headers: 0,
            has_chunk: false,
            chunks: 0,
        }
    }

    /// Writes an entry's headers.
    pub(super) fn headers(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        let so_far = self.job.as_ref().map_or(0, |job| job.input.len());
        if self.job.is_none() || so_far.saturating_sub(self.headers) >= HEADERS_BYTES_MAX {
            self.begin_member()?;
            self.has_chunk = false;
        }
        self.append(bytes);
        Ok(())
    }

    /// Writes a file's content and what fills its last block. Gives the digest of all of it, if it is not one
    /// chunk, whose digest says the same.
    ///
    /// `alone`: it begins a member even where it could share one.
    pub(super) fn content(
        &mut self,
        bytes: u64,
        alone: bool,
        content: Content<'_>,
    ) -> Result<Option<Digest>, Stopped> {
        let mut left = bytes;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let is_one = (1..=self.chunk_bytes as u64).contains(&bytes);
        while left > 0 {
            let chunk = usize::try_from(left).unwrap_or(usize::MAX);
            let chunk = chunk.min(self.chunk_bytes);
            self.begin_chunk(chunk, alone)?;
            let hasher = (!is_one).then_some(&mut hasher);
            self.fill(chunk, hasher, content)?;
            left -= chunk as u64;
        }
        let block = draught_tar::BLOCK_BYTES as u64;
        let padding = usize::try_from(bytes.wrapping_neg() % block).unwrap_or_default();
        self.append(
            [0; draught_tar::BLOCK_BYTES]
                .get(..padding)
                .unwrap_or_default(),
        );
        if let Some(job) = &self.job {
            self.headers = job.input.len();
        }
        Ok((!is_one).then(|| hasher.finish()))
    }

    fn begin_chunk(&mut self, bytes: usize, alone: bool) -> Result<(), Stopped> {
        let end = self.job.as_ref().map_or(0, |job| job.input.len());
        let shared = end.saturating_sub(self.member).saturating_add(bytes);
        if alone || !self.has_chunk || shared > self.pack_bytes {
            self.begin_member()?;
            self.has_chunk = true;
        }
        if let Some(job) = &mut self.job {
            job.pieces.push(Piece {
                member: job.members.len().saturating_sub(1),
                start: job.input.len(),
                bytes,
                digest: None,
            });
        }
        self.chunks += 1;
        Ok(())
    }

    fn begin_member(&mut self) -> Result<(), Stopped> {
        let full = |job: &Job| job.input.len() >= JOB_BYTES;
        if self.job.as_ref().is_some_and(full) {
            self.flush()?;
        }
        let job = match &mut self.job {
            Some(job) => job,
            none => {
                let mut job = self.free.recv().map_err(|_| Stopped::HungUp)?;
                job.sequence = self.sequence;
                self.sequence += 1;
                none.insert(job)
            }
        };
        self.member = job.input.len();
        self.headers = self.member;
        job.members.push(Member {
            start: self.member,
            stored_bytes: 0,
        });
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) {
        if let Some(job) = &mut self.job {
            job.input.extend_from_slice(bytes);
        }
    }

    /// Appends so many bytes of content.
    fn fill(
        &mut self,
        bytes: usize,
        mut hasher: Option<&mut Hasher>,
        content: Content<'_>,
    ) -> Result<(), Stopped> {
        let Some(job) = &mut self.job else {
            return Ok(());
        };
        let start = job.input.len();
        job.input.resize(start + bytes, 0);
        let mut rest = job.input.get_mut(start..).unwrap_or_default();
        while !rest.is_empty() {
            let read = content(rest)?;
            let (filled, unfilled) = rest.split_at_mut_checked(read).unwrap_or_default();
            if filled.is_empty() {
                // A chunk must never be made of zeros that nobody gave.
                let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(WriteError::Spool(error).into());
            }
            if let Some(hasher) = &mut hasher {
                hasher.update(filled);
            }
            rest = unfilled;
        }
        Ok(())
    }

    /// Hands on what is left; there is no more.
    pub(super) fn flush(&mut self) -> Result<(), Stopped> {
        match self.job.take() {
            Some(job) => self.jobs.send(job).map_err(|_| Stopped::HungUp),
            None => Ok(()),
        }
    }
}
