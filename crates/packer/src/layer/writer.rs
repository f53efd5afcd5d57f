//! The last thread: puts jobs back in order and writes them.

use std::collections::BTreeMap;
use std::path::Path;

use crossbeam_channel::{Receiver, Sender};
use draught_codec::EncodeError;
use draught_rafs::blob::{BlobOptions, BlobWriter};

use super::error::PackLayerError;
use super::jobs::Job;
use crate::spool::Spool;

/// The data of a blob, complete but for its end.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) spool: Spool,
    pub(crate) writer: BlobWriter,
}

/// Writes jobs in their order and gives them back; `None` if there was none.
pub(super) fn write(
    options: BlobOptions,
    dir: &Path,
    done: &Receiver<Result<Job, EncodeError>>,
    free: &Sender<Job>,
) -> Result<Option<Written>, PackLayerError> {
    let mut written: Option<Written> = None;
    let mut early: BTreeMap<u64, Job> = BTreeMap::new();
    let mut next = 0;
    while let Ok(job) = done.recv() {
        let job = job.map_err(|source| PackLayerError::Encode { source })?;
        early.insert(job.sequence, job);
        while let Some(mut job) = early.remove(&next) {
            next += 1;
            let written = match &mut written {
                Some(written) => written,
                none => none.insert(Written {
                    spool: Spool::new(dir).map_err(|source| PackLayerError::Spool { source })?,
                    writer: BlobWriter::new(options),
                }),
            };
            append(written, &job)?;
            job.clear();
            // The chunker may be gone already; then nobody needs the job.
            drop(free.try_send(job));
        }
    }
    if early.is_empty() {
        Ok(written)
    } else {
        Err(PackLayerError::Aborted)
    }
}

fn append(written: &mut Written, job: &Job) -> Result<(), PackLayerError> {
    let mut chunks = job.chunks.as_slice();
    for part in &job.parts {
        let (these, rest) = chunks.split_at_checked(part.chunks).unwrap_or_default();
        chunks = rest;
        let stored = u32::try_from(part.stored_bytes).unwrap_or(u32::MAX);
        written
            .writer
            .push(these, stored, part.compression)
            .map_err(|source| PackLayerError::Blob { source })?;
    }
    written
        .spool
        .append(&job.output)
        .map_err(|source| PackLayerError::Spool { source })
}
