//! The threads of a layer, started and joined.

use std::io::{self, Read, Seek, Write};
use std::thread;

use crossbeam_channel::bounded;
use draught_digest::Digest;
use draught_tar::{Data, Extra, Reader};
use draught_tree::{Entry, EntryKind, Meta};

use super::cutter::{Cutter, Stopped};
use super::document::Document;
use super::error::WriteError;
use super::jobs::{self, Job};
use super::options::WriteOptions;
use super::order::{self, Order};
use super::output::Output;
use super::spool::{Range, Spool, Spooled};
use super::toc::{Added, Index, ItemKind, Toc, TocLimits};
use super::{headers, tail};
use crate::apply::{LANDMARK, NO_LANDMARK};

/// What a landmark holds.
const MARK: &[u8] = b"\x0f";

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// SHA-256 of the table of contents: annotation `containerd.io/snapshot/stargz/toc.digest` of the layer.
    pub toc_digest: Digest,
    /// SHA-256 of what the layer decodes to: its entry in the configuration's `rootfs.diff_ids`.
    pub diff_id: Digest,
    /// Bytes that the layer decodes to, table of contents included: annotation
    /// `io.containers.estargz.uncompressed-size`.
    pub uncompressed_bytes: u64,
    /// Bytes of the layer.
    pub stored_bytes: u64,
    /// Bytes of the table of contents.
    pub toc_bytes: u64,
    /// Bytes that the table of contents takes in the layer.
    pub toc_stored_bytes: u64,
    /// Entries that the layer has, without the format's own.
    pub entries: u64,
    /// Chunks of files, without those of the format's own.
    pub chunks: u64,
    /// Gzip members that hold entries.
    pub members: u64,
    /// How many of the paths of [`WriteOptions::prefetch`] the layer has.
    pub prefetch_found: u64,
    /// How many bytes, from the layer's first on, hold what a start needs.
    pub prefetch_stored_bytes: u64,
}

/// What the members of entries are about, besides where they are.
struct Plan {
    /// All items in the order in which they are stored.
    order: Vec<Index>,
    mark: Index,
    found: u64,
}

/// Writes a layer's archive, a tar archive that is not compressed, anew as eStargz.
///
/// The archive is read to its end. Its entries keep their order and all that unpackers make of them: whiteouts,
/// links, attributes, devices, times, names of owners, and pax records that nobody here knows. Sparse files are
/// written out, their holes as zeros. A table of contents and landmarks that are there already are left out.
/// Entries that later ones replace are not in the table; in the archive they are as before.
///
/// If [`WriteOptions::prefetch`] names files, the archive is written to what `spool` gives, an empty file,
/// and read back in the order that is wanted, without entries that later ones replace. Else `spool` is not
/// called.
///
/// The calling thread reads, `options.threads` more compress, and one more writes to `out`. Besides some 300 bytes
/// for each entry and further chunk of a file, memory is bounded by some 10 chunks, or 2 for each thread.
///
/// # Errors
/// See [`WriteError`]. If [`WriteError::is_limit_of_format`] the layer should stay as it was: `out` has been
/// written to until then.
pub fn write<S: Read + Write + Seek>(
    archive: impl Read,
    out: impl Write + Send,
    spool: impl FnOnce() -> io::Result<S>,
    options: &WriteOptions,
) -> Result<Written, WriteError> {
    options.check()?;
    let mut toc = Toc::new(TocLimits {
        chunk_bytes: options.chunk_bytes,
        entries_max: options.entries_max,
        bytes_max: options.toc_bytes_max,
    });
    let (plan, chunks, mut output) = compress(out, options, |cutter| {
        let reader = Reader::new(archive, options.tar_limits);
        if options.prefetch.is_empty() {
            stream(reader, &mut toc, cutter, options)
        } else {
            let spool = spool().map_err(WriteError::Spool)?;
            reorder(reader, Spool::new(spool), &mut toc, cutter, options)
        }
    })?;
    let document = Document {
        toc: &toc,
        order: &plan.order,
        places: &output.places,
        chunk_bytes: options.chunk_bytes,
    };
    let mark = toc.item(plan.mark).map_or(0, |mark| mark.first_chunk);
    let mark = usize::try_from(mark).ok();
    let mark = mark.and_then(|mark| output.places.get(mark));
    let prefetch_stored_bytes = mark.map_or(0, |mark| mark.offset);
    let tail = tail::write(
        document,
        output.stored_bytes,
        options.toc_bytes_max,
        &mut output.decoded,
        output.out,
    )?;
    let (diff_id, uncompressed_bytes, _) = output.decoded.finish();
    Ok(Written {
        toc_digest: tail.toc_digest,
        diff_id,
        uncompressed_bytes,
        stored_bytes: output.stored_bytes + tail.stored_bytes,
        toc_bytes: tail.toc_bytes,
        toc_stored_bytes: tail.toc_stored_bytes,
        entries: (plan.order.len() as u64).saturating_sub(1),
        chunks: chunks.saturating_sub(1),
        members: output.members,
        prefetch_found: plan.found,
        prefetch_stored_bytes: if plan.found > 0 {
            prefetch_stored_bytes
        } else {
            0
        },
    })
}

/// Starts what compresses and writes, lets `cut` give it work, and waits for its end.
fn compress<W: Write + Send>(
    out: W,
    options: &WriteOptions,
    cut: impl FnOnce(&mut Cutter) -> Result<Plan, Stopped>,
) -> Result<(Plan, u64, Output<W>), WriteError> {
    let threads = options.threads.get();
    // Both are checked to be at most 16 MiB.
    let chunk_bytes = usize::try_from(options.chunk_bytes).unwrap_or(usize::MAX);
    let pack_bytes = usize::try_from(options.pack_bytes).unwrap_or(usize::MAX);
    let count = jobs::count(threads, chunk_bytes.max(pack_bytes));
    let (free_tx, free_rx) = bounded(count);
    let (jobs_tx, jobs_rx) = bounded(count);
    let (done_tx, done_rx) = bounded(count);
    for _ in 0..count {
        // There is room for all of them.
        drop(free_tx.try_send(Job::default()));
    }
    thread::scope(|scope| {
        for _ in 0..threads {
            let (jobs, done) = (jobs_rx.clone(), done_tx.clone());
            scope.spawn(move || jobs::work(options.level, &jobs, &done));
        }
        drop((jobs_rx, done_tx));
        let writer = scope.spawn(move || Output::new(out).run(&done_rx, &free_tx));
        let mut cutter = Cutter::new(chunk_bytes, pack_bytes, free_rx, jobs_tx);
        let plan = cut(&mut cutter).and_then(|plan| cutter.flush().map(|()| plan));
        let chunks = cutter.chunks;
        // Hang up, so that the workers end, and the writer after them.
        drop(cutter);
        let output = match writer.join() {
            Ok(output) => output?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        match plan {
            Ok(plan) => Ok((plan, chunks, output)),
            Err(Stopped::Failed(error)) => Err(error),
            Err(Stopped::HungUp) => unreachable!("the writer hangs up with an error only"),
        }
    })
}

/// Writes a landmark.
fn mark(
    toc: &mut Toc,
    cutter: &mut Cutter,
    name: &str,
    options: &WriteOptions,
) -> Result<Index, Stopped> {
    let entry = Entry {
        path: name.as_bytes().into(),
        meta: Meta::default(),
        kind: EntryKind::File {
            bytes: MARK.len() as u64,
            chunks: Box::default(),
        },
    };
    let index = toc.add_mark(name, MARK.len() as u64);
    if let Some(item) = toc.item_mut(index) {
        item.first_chunk = cutter.chunks;
    }
    cutter.headers(&headers::encode(
        &entry,
        &Extra::default(),
        &options.tar_limits,
    )?)?;
    let mut content = MARK;
    let mut read = |out: &mut [u8]| content.read(out).map_err(WriteError::Spool);
    // What is before it is what a start needs: it must not share a member with that.
    cutter.content(MARK.len() as u64, true, &mut read)?;
    Ok(index)
}

/// Writes a file's content and remembers where it is.
fn content(
    toc: &mut Toc,
    cutter: &mut Cutter,
    index: Index,
    read: &mut dyn FnMut(&mut [u8]) -> Result<usize, WriteError>,
) -> Result<(), Stopped> {
    let Some(item) = toc.item_mut(index) else {
        return Ok(());
    };
    if let ItemKind::File { bytes } = item.kind {
        item.first_chunk = cutter.chunks;
        item.digest = cutter.content(bytes, false, read)?.map(Box::new);
    }
    Ok(())
}

/// Writes the entries as they come.
fn stream<R: Read>(
    mut reader: Reader<R>,
    toc: &mut Toc,
    cutter: &mut Cutter,
    options: &WriteOptions,
) -> Result<Plan, Stopped> {
    let mark = mark(toc, cutter, NO_LANDMARK, options)?;
    while let Some(entry) = reader.next_entry().map_err(WriteError::Archive)? {
        let headers = headers::encode(&entry, reader.extra(), &options.tar_limits)?;
        let index = match toc.add(entry, reader.extra())? {
            Added::Dropped => continue,
            Added::New(index) | Added::Again(index) => index,
        };
        cutter.headers(&headers)?;
        content(toc, cutter, index, &mut |out| {
            reader.read_data(out).map_err(WriteError::Archive)
        })?;
    }
    reader.finish().map_err(WriteError::Archive)?;
    toc.settle()?;
    let Order { rest, .. } = order::order(toc, &[]);
    Ok(Plan {
        order: rest,
        mark,
        found: 0,
    })
}

/// Writes the entries after all were seen.
fn reorder<R: Read, S: Read + Write + Seek>(
    reader: Reader<R>,
    mut spool: Spool<S>,
    toc: &mut Toc,
    cutter: &mut Cutter,
    options: &WriteOptions,
) -> Result<Plan, Stopped> {
    let ranges = fill_spool(reader, &mut spool, toc, options)?;
    let mut spooled = spool.finish().map_err(WriteError::Spool)?;
    toc.settle()?;
    let Order { first, rest, found } = order::order(toc, &options.prefetch);
    let name = if found > 0 { LANDMARK } else { NO_LANDMARK };
    for index in &first {
        unspool(*index, &ranges, &mut spooled, toc, cutter, options)?;
    }
    let mark = mark(toc, cutter, name, options)?;
    for index in &rest {
        unspool(*index, &ranges, &mut spooled, toc, cutter, options)?;
    }
    let order = [&first[..], &[mark], &rest].concat();
    Ok(Plan { order, mark, found })
}

/// Reads the archive to its end: where each item is.
fn fill_spool<R: Read, S: Read + Write + Seek>(
    mut reader: Reader<R>,
    spool: &mut Spool<S>,
    toc: &mut Toc,
    options: &WriteOptions,
) -> Result<Vec<Range>, WriteError> {
    let mut ranges: Vec<Range> = Vec::new();
    while let Some(entry) = reader.next_entry().map_err(WriteError::Archive)? {
        let headers = headers::encode(&entry, reader.extra(), &options.tar_limits)?;
        let range = Range {
            start: spool.position(),
            headers_bytes: headers.len() as u64,
        };
        match toc.add(entry, reader.extra())? {
            Added::Dropped => continue,
            Added::New(_) => ranges.push(range),
            Added::Again(index) => {
                let index = usize::try_from(index).ok();
                if let Some(old) = index.and_then(|index| ranges.get_mut(index)) {
                    *old = range;
                }
            }
        }
        spool.append(&headers).map_err(WriteError::Spool)?;
        loop {
            match reader.next_data(usize::MAX).map_err(WriteError::Archive)? {
                Data::Bytes(bytes) => spool.append(bytes).map_err(WriteError::Spool)?,
                Data::Hole(bytes) => spool.skip(bytes as u64),
                Data::End => break,
            }
        }
    }
    reader.finish().map_err(WriteError::Archive)?;
    Ok(ranges)
}

/// Writes an item that was spooled.
fn unspool<S: Read + Seek>(
    index: Index,
    ranges: &[Range],
    spooled: &mut Spooled<S>,
    toc: &mut Toc,
    cutter: &mut Cutter,
    options: &WriteOptions,
) -> Result<(), Stopped> {
    let range = usize::try_from(index).ok();
    let range = range.and_then(|index| ranges.get(index).copied());
    let range = range.unwrap_or_default();
    let read = spooled
        .seek(range.start)
        .and_then(|()| spooled.read_exact(range.headers_bytes));
    let mut headers = read.map_err(WriteError::Spool)?;
    if let Some(item) = toc.item(index) {
        // Names that later entries took are not there: say what the table says.
        let target = match &item.kind {
            ItemKind::HardLink { inode, target } => Some(toc.link_target(*inode, target)),
            _ => None,
        };
        headers = headers::edit(headers, &options.tar_limits, &item.path, target)?;
    }
    cutter.headers(&headers)?;
    content(toc, cutter, index, &mut |out| {
        spooled.read(out).map_err(WriteError::Spool)
    })
}
