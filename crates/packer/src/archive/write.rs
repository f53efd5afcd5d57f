//! One layer: an archive in, an archive out.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use draught_codec::{HashingWriter, PieceKind};
use draught_digest::{Algorithm, Digest};

use super::compress::{Compressor, compress};
use super::content::{self, Counts};
use super::entries::is_of_estargz;
use crate::layer::{
    Archive, Content, Decoded, LayerInput, PackLayerError, PipeReader, PipeWriter, decode, join,
    pipe,
};
use crate::pack::{ArchiveFormat, ArchiveOptions, EstargzOptions};
use crate::progress::{LayerReport, Progress};
use crate::spool::{Spool, Spooled};

/// A layer as it was written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) content: Spooled,
    /// Of its archive.
    pub(crate) diff_id: Digest,
    /// The digest of its table of contents, and the bytes of its archive, for eStargz.
    pub(crate) toc: Option<(Digest, u64)>,
    pub(crate) report: LayerReport,
}

/// What comes out of the pipe becomes this.
struct Output {
    content: Spooled,
    /// `None` when it is the archive that came in.
    diff_id: Option<Digest>,
    toc: Option<(Digest, u64)>,
    counts: Counts,
}

/// Writes a layer anew.
pub(crate) fn write_layer<R: Read + Send>(
    input: LayerInput<R>,
    options: &ArchiveOptions,
    number: usize,
    progress: &dyn Progress,
) -> Result<Written, PackLayerError> {
    let is_estargz = input.is_estargz;
    let limits = options.layer_limits;
    let cancelled = Arc::new(AtomicBool::new(false));
    let (pipe_writer, mut pipe_reader) = pipe();
    let (decoded, output) = thread::scope(|scope| {
        let stop = Arc::clone(&cancelled);
        let decoder =
            scope.spawn(move || decode(input, limits, pipe_writer, number, progress, stop));
        let output = write(&mut pipe_reader, is_estargz, options);
        match output {
            // Bytes that are not those of the layer look like a bad archive: read on to know.
            Err(PackLayerError::Tar { .. } | PackLayerError::Estargz { .. }) => {
                drop(io::copy(&mut pipe_reader, &mut io::sink()));
            }
            Err(_) => cancelled.store(true, Ordering::Relaxed),
            Ok(_) => {}
        }
        // Hang up, so that a decoder that waits for a buffer ends.
        drop(pipe_reader);
        (join(decoder), output)
    });
    let (decoded, output) = match (decoded, output) {
        (Ok(decoded), Ok(output)) => (decoded, output),
        (Ok(_) | Err(PackLayerError::Aborted), Err(error)) | (Err(error), _) => return Err(error),
    };
    Ok(written(output, Some(decoded)))
}

/// Writes what is no archive yet.
pub(crate) fn write_content<C: Content + Send>(
    content: &mut C,
    options: &ArchiveOptions,
) -> Result<Written, PackLayerError> {
    let (pipe_writer, mut pipe_reader) = pipe();
    let (archived, output) = thread::scope(|scope| {
        let archiver = scope.spawn(move || archive(content, pipe_writer));
        let output = write(&mut pipe_reader, false, options);
        drop(pipe_reader);
        (join(archiver), output)
    });
    match (archived, output) {
        (Ok((counts, diff_id)), Ok(mut output)) => {
            output.counts = counts;
            output.diff_id.get_or_insert(diff_id);
            Ok(written(output, None))
        }
        (Ok(_) | Err(PackLayerError::Aborted), Err(error)) | (Err(error), _) => Err(error),
    }
}

fn archive(
    content: &mut impl Content,
    pipe: PipeWriter,
) -> Result<(Counts, Digest), PackLayerError> {
    let mut out = HashingWriter::new(pipe, Algorithm::Sha256);
    let counts = content::archive(content, &mut out, |_| true);
    let (diff_id, _, pipe) = out.finish();
    // A pipe that nobody reads is no failure of ours.
    let counts = counts.map_err(|error| match error {
        PackLayerError::Archive {
            source: draught_tar::WriteError::Io { .. },
        } => PackLayerError::Aborted,
        error => error,
    })?;
    pipe.end();
    Ok((counts, diff_id))
}

fn written(output: Output, decoded: Option<Decoded>) -> Written {
    let Output {
        content,
        diff_id,
        toc,
        counts,
    } = output;
    let blob_bytes = content.bytes();
    let report = LayerReport {
        stored_bytes: decoded.map_or(counts.file_bytes, |decoded| decoded.stored_bytes),
        digest: decoded.map(|decoded| decoded.digest),
        diff_id: decoded.map(|decoded| decoded.diff_id),
        decoded_bytes: decoded.map_or(counts.file_bytes, |decoded| decoded.decoded_bytes),
        entries: counts.entries,
        chunks: 0,
        new_chunks: 0,
        blob_bytes,
        cached: false,
    };
    let same = decoded.map(|decoded| decoded.diff_id);
    Written {
        // One of them is known: an archive that came in, or one that was written.
        diff_id: diff_id.or(same).unwrap_or_else(|| content.digest()),
        content,
        toc,
        report,
    }
}

fn write(
    archive: &mut PipeReader,
    is_estargz: bool,
    options: &ArchiveOptions,
) -> Result<Output, PackLayerError> {
    let kind = match &options.format {
        ArchiveFormat::Estargz(estargz) => return write_estargz(archive, estargz, options),
        ArchiveFormat::Gzip { level } => PieceKind::Gzip { level: *level },
        ArchiveFormat::Zstd { level } => PieceKind::Zstd { level: *level },
    };
    let limits = options.tar_limits;
    let produce = |out: &mut Compressor| {
        if is_estargz {
            let mut archive = Archive::new(archive, limits, false);
            let mut out = HashingWriter::new(out, Algorithm::Sha256);
            let counts = content::archive(&mut archive, &mut out, |path| !is_of_estargz(path))?;
            return Ok((counts, Some(out.finish().0)));
        }
        // The archive stays as it is, and is looked at on the way.
        let mut counts = Counts::default();
        let mut archive = Archive::new(Tee { archive, out }, limits, false);
        while let Some(entry) = archive.next_entry()? {
            counts.entries += 1;
            if let draught_tree::EntryKind::File { bytes, .. } = entry.kind {
                counts.file_bytes = counts.file_bytes.saturating_add(bytes);
            }
        }
        Ok((counts, None))
    };
    let compressed = compress(kind, options.threads, &options.spool_dir, produce);
    let ((counts, diff_id), content) = compressed?;
    Ok(Output {
        content,
        diff_id,
        toc: None,
        counts,
    })
}

fn write_estargz(
    archive: &mut PipeReader,
    estargz: &EstargzOptions,
    options: &ArchiveOptions,
) -> Result<Output, PackLayerError> {
    let failed = |source| PackLayerError::Spool { source };
    let mut spool = Spool::new(&options.spool_dir).map_err(failed)?;
    let write_options = draught_estargz::WriteOptions {
        chunk_bytes: estargz.chunk_bytes,
        level: estargz.level,
        pack_bytes: estargz.pack_bytes,
        prefetch: estargz.prefetch.clone(),
        threads: options.threads,
        tar_limits: options.tar_limits,
        ..draught_estargz::WriteOptions::default()
    };
    let aside = || tempfile::tempfile_in(&options.spool_dir);
    let written = draught_estargz::write(archive, &mut spool, aside, &write_options);
    let written = written.map_err(|source| PackLayerError::Estargz {
        source: Box::new(source),
    })?;
    Ok(Output {
        content: spool.finish(),
        diff_id: Some(written.diff_id),
        toc: Some((written.toc_digest, written.uncompressed_bytes)),
        counts: Counts {
            entries: written.entries,
            file_bytes: written.uncompressed_bytes,
        },
    })
}

/// What is read is written too.
struct Tee<'a> {
    archive: &'a mut PipeReader,
    out: &'a mut Compressor,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.archive.read(buffer)?;
        self.out.write_all(buffer.get(..read).unwrap_or_default())?;
        Ok(read)
    }
}
