//! The thread in the middle: applies entries to the tree and cuts files into chunks.

use crossbeam_channel::{Receiver, Sender};
use draught_digest::Digest;
use draught_tree::{ChunkId, ChunkMap, Compression, Entry, EntryKind, Tree};

use super::error::PackLayerError;
use super::jobs::{JOB_BYTES, Job, Part};
use super::order::{self, FENCE_BYTES, Order};
use crate::cache::RecordWriter;
use crate::known::Known;
use crate::layer::own_tree::OwnTree;
use crate::options::PackOptions;

/// Where entries and their content come from: an archive or a directory.
pub(crate) trait Content {
    /// The next entry; `None` at the end.
    fn next_entry(&mut self) -> Result<Option<Entry>, PackLayerError>;

    /// Reads the content of the entry given last, if it is a file; 0 at its end.
    fn read_data(&mut self, out: &mut [u8]) -> Result<usize, PackLayerError>;
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) entries: u64,
    pub(super) file_bytes: u64,
    pub(super) chunks: u64,
    pub(super) new_chunks: u64,
}

/// Cuts content into chunks and fills jobs with those that are new.
pub(super) struct Chunker<'a> {
    options: &'a PackOptions,
    known: &'a mut Known,
    free: Receiver<Job>,
    jobs: Sender<Job>,
    /// The job being filled.
    job: Option<Job>,
    sequence: u64,
    /// Where in the job the open batch begins; its chunks are the last ones of the job.
    batch: Option<Batch>,
    /// The id that the next new chunk gets.
    next: u32,
    order: Order,
    pub(super) counts: Counts,
}

#[derive(Debug, Clone, Copy)]
struct Batch {
    bytes: usize,
    chunks: usize,
}

impl<'a> Chunker<'a> {
    pub(super) fn new(
        options: &'a PackOptions,
        known: &'a mut Known,
        first: u32,
        free: Receiver<Job>,
        jobs: Sender<Job>,
    ) -> Self {
        Self {
            options,
            known,
            free,
            jobs,
            job: None,
            sequence: 0,
            batch: None,
            next: first,
            order: Order::new(first),
            counts: Counts::default(),
        }
    }

    /// Applies all entries to the image's tree, and to the layer's own if there is one, and takes them
    /// down if there is a record; hands on the last job.
    pub(super) fn run(
        &mut self,
        tree: &mut Tree,
        own: &mut OwnTree,
        record: &mut Option<RecordWriter>,
        content: &mut impl Content,
    ) -> Result<(), PackLayerError> {
        tree.begin_layer();
        while let Some(mut entry) = content.next_entry()? {
            self.counts.entries += 1;
            if let EntryKind::File { bytes, chunks } = &mut entry.kind {
                let bytes = *bytes;
                self.counts.file_bytes = self.counts.file_bytes.saturating_add(bytes);
                *chunks = self.cut(&entry.path, bytes, content, &tree.map)?;
            }
            if let Some(record) = record {
                record.entry(&entry);
            }
            let copy = own.wants_entries().then(|| entry.clone());
            let node = tree
                .apply(entry, &self.options.tree_limits)
                .map_err(|source| PackLayerError::Apply { source })?;
            if let Some(copy) = copy {
                own.apply(copy, tree, node, &self.options.tree_limits);
            }
        }
        self.flush()
    }

    /// Cuts a file into chunks.
    fn cut(
        &mut self,
        path: &[u8],
        bytes: u64,
        content: &mut impl Content,
        map: &ChunkMap,
    ) -> Result<Box<[ChunkId]>, PackLayerError> {
        let chunk_bytes = u64::from(self.options.chunk_bytes);
        // A file's size is not to be believed before its content is there.
        let expected = bytes.div_ceil(chunk_bytes).min(1024);
        let mut chunks = Vec::with_capacity(usize::try_from(expected).unwrap_or_default());
        let mut left = bytes;
        let mut before = None;
        while left > 0 {
            let part = left.min(chunk_bytes);
            let part_bytes = usize::try_from(part).unwrap_or(usize::MAX);
            let read = self.read(part_bytes, content)?;
            if read < part_bytes {
                return Err(PackLayerError::Short {
                    path: String::from_utf8_lossy(path).into_owned(),
                    missing_bytes: left - read as u64,
                });
            }
            let chunk = self.take(part_bytes, before, map)?;
            chunks.push(chunk);
            before = Some(chunk);
            left -= part;
        }
        Ok(chunks.into_boxed_slice())
    }

    /// Reads a chunk into the job, behind what is there.
    fn read(&mut self, bytes: usize, content: &mut impl Content) -> Result<usize, PackLayerError> {
        let job = self.job_with_room(bytes)?;
        let room = job
            .input
            .get_mut(job.filled..job.filled + bytes)
            .unwrap_or_default();
        let mut filled = 0;
        while let Some(room) = room.get_mut(filled..)
            && !room.is_empty()
        {
            match content.read_data(room)? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }

    /// The job to fill, with room for a chunk of so many bytes.
    fn job_with_room(&mut self, bytes: usize) -> Result<&mut Job, PackLayerError> {
        let chunk_bytes = usize::try_from(self.options.chunk_bytes).unwrap_or(usize::MAX);
        let job_bytes = chunk_bytes.max(JOB_BYTES);
        if self
            .job
            .as_ref()
            .is_some_and(|job| job.filled + bytes > job_bytes)
        {
            self.flush()?;
        }
        if self.job.is_none() {
            let mut job = self.free.recv().map_err(|_| PackLayerError::Aborted)?;
            // A fence may have to be put before the last chunk.
            job.input.resize(job_bytes + FENCE_BYTES, 0);
            job.sequence = self.sequence;
            self.sequence += 1;
            self.job = Some(job);
        }
        self.job.as_mut().ok_or(PackLayerError::Aborted)
    }

    /// Takes the chunk that was read last, which follows `before` in its file: either it is known and
    /// may be where it is, or it becomes part of the job.
    fn take(
        &mut self,
        bytes: usize,
        before: Option<ChunkId>,
        map: &ChunkMap,
    ) -> Result<ChunkId, PackLayerError> {
        let job = self.job.as_ref().ok_or(PackLayerError::Aborted)?;
        let data = job
            .input
            .get(job.filled..job.filled + bytes)
            .unwrap_or_default();
        let digest = self.options.digester.digest(data);
        self.counts.chunks += 1;
        let may_follow =
            |order: &Order, next| before.is_none_or(|before| order.may_follow(map, before, next));
        let length = u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut known = self.known.find(map, &digest, length);
        if let Some(id) = known.find(|id| may_follow(&self.order, *id)) {
            return Ok(id);
        }
        drop(known);
        if !may_follow(&self.order, ChunkId(self.next)) {
            self.fence(bytes)?;
        }
        let id = self.push_chunk(digest, bytes)?;
        // If it was known, others may follow the newer one rather than the older.
        self.known.insert(digest, id);
        self.counts.new_chunks += 1;
        self.place(bytes)?;
        Ok(id)
    }

    /// Adds the next bytes of the job as a chunk.
    fn push_chunk(&mut self, digest: Digest, bytes: usize) -> Result<ChunkId, PackLayerError> {
        let job = self.job.as_mut().ok_or(PackLayerError::Aborted)?;
        job.filled += bytes;
        job.chunks
            .push((digest, u32::try_from(bytes).unwrap_or(u32::MAX)));
        let id = ChunkId(self.next);
        self.next = self
            .next
            .checked_add(1)
            .ok_or(PackLayerError::TooManyChunks)?;
        Ok(id)
    }

    /// Puts a fence before the chunk of so many bytes that was read last.
    fn fence(&mut self, bytes: usize) -> Result<(), PackLayerError> {
        self.close_batch();
        let chunk_bytes = usize::try_from(self.options.chunk_bytes).unwrap_or(usize::MAX);
        let id = self.next;
        let job = self.job.as_mut().ok_or(PackLayerError::Aborted)?;
        // There is room: see `job_with_room`.
        let from = job.filled;
        job.input
            .copy_within(from..from + bytes, from + FENCE_BYTES);
        let fence = job.input.get_mut(from..from + FENCE_BYTES);
        let fence = fence.unwrap_or_default();
        order::fill_fence(id, fence);
        let digester = self.options.digester;
        let pieces: Vec<(Digest, usize)> = fence
            .chunks(chunk_bytes)
            .map(|piece| (digester.digest(piece), piece.len()))
            .collect();
        for (digest, bytes) in pieces {
            self.push_chunk(digest, bytes)?;
            self.push_part(bytes, 1);
        }
        self.order.fence(self.next);
        Ok(())
    }

    /// Gives the chunk taken last its extent: the open batch, a new one, or one of its own.
    fn place(&mut self, bytes: usize) -> Result<(), PackLayerError> {
        let batch_bytes = usize::try_from(self.options.batch_bytes).unwrap_or(usize::MAX);
        if bytes < batch_bytes {
            if self
                .batch
                .is_some_and(|batch| batch.bytes + bytes > batch_bytes)
            {
                self.close_batch();
            }
            let batch = self.batch.get_or_insert(Batch {
                bytes: 0,
                chunks: 0,
            });
            batch.bytes += bytes;
            batch.chunks += 1;
        } else {
            self.close_batch();
            self.push_part(bytes, 1);
        }
        if self.job.as_ref().is_some_and(|job| job.filled >= JOB_BYTES) {
            self.flush()?;
        }
        Ok(())
    }

    fn close_batch(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.push_part(batch.bytes, batch.chunks);
        }
    }

    fn push_part(&mut self, bytes: usize, chunks: usize) {
        if let Some(job) = &mut self.job {
            job.parts.push(Part {
                bytes,
                chunks,
                stored_bytes: 0,
                compression: Compression::None,
            });
        }
    }

    /// Hands the job on. Where that happens depends on the input alone: so does the blob.
    fn flush(&mut self) -> Result<(), PackLayerError> {
        self.close_batch();
        match self.job.take() {
            Some(job) if job.filled > 0 => self.jobs.send(job).map_err(|_| PackLayerError::Aborted),
            Some(job) => {
                // Nothing new in it: it is used again.
                self.job = Some(job);
                Ok(())
            }
            None => Ok(()),
        }
    }
}
