//! From an archive to entries.

use std::fmt;
use std::io::Read;

use draught_tree::{Entry, EntryKind, Meta};

use crate::BLOCK_BYTES;
use crate::body::{Body, Run};
use crate::error::{Limits, TarError};
use crate::extra::Extra;
use crate::header::{Dialect, RawHeader, bad_number, show, text};
use crate::input::Input;
use crate::number;
use crate::pax::{Records, check};
use crate::sparse::{self, Map, Version};

/// Decodes an archive entry by entry.
///
/// [`Reader::next_entry`] gives the next entry. If it is a file, [`Reader::read_data`] or
/// [`Reader::next_data`] then give its content, holes as zeros, until there is no more; what was
/// not asked for is skipped by the next call of `next_entry`. After an error only errors follow.
///
/// It reads ahead: at the end, [`Reader::finish`] reads what is left of the stream, so that a digest
/// computed on the way covers all of it.
pub struct Reader<R> {
    input: Input<R>,
    limits: Limits,
    /// The global pax records in force.
    globals: Records,
    body: Body,
    /// Bytes of holes so far.
    hole_bytes: u64,
    extra: Extra,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Ended,
    Failed,
}

/// A part of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data<'a> {
    /// These bytes; at least one.
    Bytes(&'a [u8]),
    /// So many zeros that the archive does not store; at least one.
    Hole(usize),
    /// There is no more.
    End,
}

/// Extended headers that wait for their entry.
#[derive(Default)]
struct Pending {
    /// Where the first one is.
    offset: Option<u64>,
    /// Pax records as they are, and where their header is.
    records: Option<(Vec<u8>, u64)>,
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
}

impl<R> fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("state", &self.state)
            .field("body", &self.body)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

fn clamp(bytes: u64, max: usize) -> usize {
    usize::try_from(bytes).map_or(max, |bytes| bytes.min(max))
}

impl<R: Read> Reader<R> {
    /// A reader at the start of an archive that is not compressed. It reads in large pieces:
    /// `source` need not be buffered.
    pub fn new(source: R, limits: Limits) -> Self {
        Self {
            input: Input::new(source),
            limits,
            globals: Records::default(),
            body: Body::default(),
            hole_bytes: 0,
            extra: Extra::default(),
            state: State::Reading,
        }
    }

    /// How many bytes of the archive were taken: after [`Reader::next_entry`] gave a file, where its
    /// data begins (the map of a sparse file not counted).
    pub fn position(&self) -> u64 {
        self.input.offset()
    }

    /// What the archive says besides of the entry that was given last.
    pub fn extra(&self) -> &Extra {
        &self.extra
    }

    /// The next entry; `None` at the archive's end. A file's chunks are left empty.
    ///
    /// # Errors
    /// See [`TarError`].
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        match self.state {
            State::Ended => return Ok(None),
            State::Failed => return Err(TarError::AfterError),
            State::Reading => {}
        }
        let entry = self.advance();
        self.state = match &entry {
            Ok(Some(_)) => State::Reading,
            Ok(None) => State::Ended,
            Err(_) => State::Failed,
        };
        entry
    }

    /// Reads the current file's content; 0 at its end, or if `out` is empty or the entry is no file.
    ///
    /// # Errors
    /// See [`TarError`].
    pub fn read_data(&mut self, out: &mut [u8]) -> Result<usize, TarError> {
        if self.state == State::Failed {
            return Err(TarError::AfterError);
        }
        match self.body.run() {
            Run::End => Ok(0),
            Run::Hole(bytes) => {
                let bytes = clamp(bytes, out.len());
                if let Some(out) = out.get_mut(..bytes) {
                    out.fill(0);
                }
                self.body.position += bytes as u64;
                Ok(bytes)
            }
            Run::Data(bytes) => {
                let bytes = clamp(bytes, out.len());
                let out = out.get_mut(..bytes).unwrap_or_default();
                if out.is_empty() {
                    return Ok(0);
                }
                let read = self.input.read(out);
                self.took(read)
            }
        }
    }

    /// The next part of the current file's content, at most `max` bytes (at least 1) of it, without
    /// a copy and with holes told apart.
    ///
    /// # Errors
    /// See [`TarError`].
    pub fn next_data(&mut self, max: usize) -> Result<Data<'_>, TarError> {
        if self.state == State::Failed {
            return Err(TarError::AfterError);
        }
        let max = max.max(1);
        match self.body.run() {
            Run::End => Ok(Data::End),
            Run::Hole(bytes) => {
                let bytes = clamp(bytes, max);
                self.body.position += bytes as u64;
                Ok(Data::Hole(bytes))
            }
            Run::Data(bytes) => {
                // The borrow of what is taken must not outlive the bookkeeping: look first.
                let ready = self.input.ready();
                let bytes = ready.map(|ready| clamp(bytes, max).min(ready));
                let bytes = self.took(bytes)?;
                Ok(Data::Bytes(self.input.take(bytes)?))
            }
        }
    }

    /// Accounts for stored bytes that were read.
    fn took(&mut self, bytes: Result<usize, TarError>) -> Result<usize, TarError> {
        let bytes = bytes.and_then(|bytes| match bytes {
            0 => Err(self.input.truncated("a file's data")),
            bytes => Ok(bytes),
        });
        match &bytes {
            Ok(bytes) => {
                self.body.position += *bytes as u64;
                self.body.stored_left -= *bytes as u64;
            }
            Err(_) => self.state = State::Failed,
        }
        bytes
    }

    /// Reads the stream to its end and gives it back. What it holds after the archive's end is
    /// not looked at.
    ///
    /// # Errors
    /// [`TarError::Io`].
    pub fn finish(mut self) -> Result<R, TarError> {
        self.input.skip(u64::MAX)?;
        Ok(self.input.into_source())
    }

    fn advance(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip_body()?;
        let mut pending = Pending::default();
        loop {
            let offset = self.input.offset();
            let Some(block) = self.input.block()? else {
                return self.end(&pending);
            };
            if block == [0; BLOCK_BYTES] {
                let second = self.input.block()?;
                if second.is_some_and(|second| second != [0; BLOCK_BYTES]) {
                    return Err(TarError::LoneZeroBlock { offset });
                }
                return self.end(&pending);
            }
            let header = RawHeader::parse(block, offset)?;
            match header.typeflag {
                b'x' => pending.records = Some((self.extended(&header, offset)?, offset)),
                b'g' => {
                    let data = self.extended(&header, offset)?;
                    self.globals.apply(&data, offset, true, &self.limits)?;
                    // It may be the last one: what follows need not be an entry.
                    continue;
                }
                b'L' => pending.path = self.long_name(&header, offset)?,
                b'K' => pending.target = self.long_name(&header, offset)?,
                _ => return self.entry(&header, offset, pending).map(Some),
            }
            pending.offset.get_or_insert(offset);
        }
    }

    fn end(&self, pending: &Pending) -> Result<Option<Entry>, TarError> {
        match pending.offset {
            None => Ok(None),
            Some(_) => Err(TarError::Dangling {
                offset: self.input.offset(),
            }),
        }
    }

    /// Passes over what is left of the current entry.
    fn skip_body(&mut self) -> Result<(), TarError> {
        let body = std::mem::take(&mut self.body);
        if self.input.skip(body.stored_left)? < body.stored_left {
            return Err(self.input.truncated("a file's data"));
        }
        // An archive may end without the padding of its last file.
        self.input.skip(body.padding)?;
        Ok(())
    }

    /// The content of an extended header.
    fn extended(&mut self, header: &RawHeader, offset: u64) -> Result<Vec<u8>, TarError> {
        let bytes = stored_bytes(header, offset)?;
        let max = self.limits.extended_bytes_max;
        let size = usize::try_from(bytes).unwrap_or(usize::MAX);
        check(offset, "the size of an extended header", size, max)?;
        let mut data = vec![0; size];
        if self.input.read_full(&mut data)? < size {
            return Err(self.input.truncated("an extended header"));
        }
        self.input.skip(padding(bytes))?;
        Ok(data)
    }

    /// GNU tar's way to write a name that does not fit; an empty one does not count.
    fn long_name(&mut self, header: &RawHeader, offset: u64) -> Result<Option<Vec<u8>>, TarError> {
        let mut name = self.extended(header, offset)?;
        name.truncate(text(&name).len());
        let max = self.limits.name_bytes_max;
        check(offset, "the length of a long name", name.len(), max)?;
        Ok(Some(name).filter(|name| !name.is_empty()))
    }

    fn entry(
        &mut self,
        header: &RawHeader,
        offset: u64,
        pending: Pending,
    ) -> Result<Entry, TarError> {
        let mut records = self.globals.clone();
        if let Some((data, offset)) = &pending.records {
            records.apply(data, *offset, false, &self.limits)?;
        }
        let target = pending.target.map(Vec::into_boxed_slice);
        let target = target.or_else(|| records.linkpath.take());
        let target = target.unwrap_or_else(|| text(&header.linkname).into());
        let path = pending.path.map(Vec::into_boxed_slice);
        let path = path.or_else(|| records.path.take());
        let mut path = path.unwrap_or_else(|| header.path().into());

        let mut flag = header.typeflag;
        if flag == 0 {
            flag = if path.ends_with(b"/") { b'5' } else { b'0' };
        }
        let kind = match flag {
            b'0' | b'7' | b'S' => {
                let bytes = self.start_file(header, offset, &records)?;
                if let Some(name) = records.sparse.name.take() {
                    path = name;
                }
                EntryKind::File {
                    bytes,
                    chunks: Box::default(),
                }
            }
            b'1' => EntryKind::HardLink(target),
            b'2' if target.is_empty() => {
                let path = show(&path);
                return Err(TarError::NoTarget { offset, path });
            }
            b'2' => EntryKind::Symlink(target),
            b'3' => {
                let (major, minor) = device(header, offset, &records)?;
                EntryKind::CharDevice { major, minor }
            }
            b'4' => {
                let (major, minor) = device(header, offset, &records)?;
                EntryKind::BlockDevice { major, minor }
            }
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            _ => {
                return Err(TarError::Type {
                    offset,
                    flag: char::from(flag),
                    path: show(&path),
                });
            }
        };
        let meta = self.meta(header, offset, &mut records)?;
        self.extra = Extra {
            user: records.uname.unwrap_or_else(|| header.user().into()),
            group: records.gname.unwrap_or_else(|| header.group().into()),
            records: records.others.into_iter().collect(),
        };
        Ok(Entry { path, meta, kind })
    }

    fn meta(
        &self,
        header: &RawHeader,
        offset: u64,
        records: &mut Records,
    ) -> Result<Meta, TarError> {
        let mode = number::parse(&header.mode).and_then(|mode| u16::try_from(mode & 0o7777).ok());
        let mode = mode.ok_or_else(|| bad_number(offset, "mode", &header.mode))?;
        let (mtime, mtime_nsec) = match records.mtime {
            Some(time) => time,
            None => {
                let mtime = number::parse(&header.mtime);
                (
                    mtime.ok_or_else(|| bad_number(offset, "mtime", &header.mtime))?,
                    0,
                )
            }
        };
        Ok(Meta {
            mode,
            uid: number_or(records.uid, &header.uid, "uid", offset)?,
            gid: number_or(records.gid, &header.gid, "gid", offset)?,
            mtime,
            mtime_nsec,
            xattrs: records.take_xattrs(offset, &self.limits)?,
        })
    }

    /// Prepares for a file's content; its size.
    fn start_file(
        &mut self,
        header: &RawHeader,
        offset: u64,
        records: &Records,
    ) -> Result<u64, TarError> {
        let mut stored_left = match records.size {
            Some(size) => size,
            None => stored_bytes(header, offset)?,
        };
        let limits = self.limits;
        let check_size = |value| {
            if value <= limits.file_bytes_max {
                return Ok(());
            }
            Err(TarError::TooLarge {
                offset,
                what: "the size of a file",
                value,
                limit: limits.file_bytes_max,
            })
        };
        check_size(stored_left)?;
        let padding = padding(stored_left);
        let found = if header.typeflag == b'S' {
            if header.dialect() != Dialect::Gnu {
                return Err(sparse::bad(
                    offset,
                    "an old sparse file that GNU tar did not write",
                ));
            }
            Some(sparse::read_old(&mut self.input, header, offset, &limits)?)
        } else {
            match records.sparse.version(offset)? {
                None => None,
                Some(version) => {
                    let bytes = records.sparse.real_bytes(offset)?;
                    let pieces = match version {
                        Version::InRecords => records.sparse.pieces(offset, &limits)?,
                        Version::InData => {
                            sparse::read_map(&mut self.input, &mut stored_left, offset, &limits)?
                        }
                    };
                    Some((pieces, bytes))
                }
            }
        };
        let mut bytes = stored_left;
        let mut map = None;
        if let Some((pieces, real_bytes)) = found {
            check_size(real_bytes)?;
            map = Some(Map::new(pieces, real_bytes, stored_left, offset)?);
            bytes = real_bytes;
            // A map's pieces add up to what is stored and lie within the file.
            self.hole_bytes = self.hole_bytes.saturating_add(real_bytes - stored_left);
            if self.hole_bytes > limits.hole_bytes_max {
                return Err(TarError::TooLarge {
                    offset,
                    what: "the size of all holes in the archive",
                    value: self.hole_bytes,
                    limit: limits.hole_bytes_max,
                });
            }
        }
        self.body = Body {
            position: 0,
            bytes,
            stored_left,
            padding,
            map,
            piece: 0,
        };
        Ok(bytes)
    }
}

fn stored_bytes(header: &RawHeader, offset: u64) -> Result<u64, TarError> {
    let size = number::parse(&header.size).and_then(|size| u64::try_from(size).ok());
    size.ok_or_else(|| bad_number(offset, "size", &header.size))
}

/// From the end of so many bytes to the next block.
fn padding(bytes: u64) -> u64 {
    bytes.wrapping_neg() % BLOCK_BYTES as u64
}

fn number_or(
    record: Option<u32>,
    field: &[u8],
    name: &'static str,
    offset: u64,
) -> Result<u32, TarError> {
    if let Some(record) = record {
        return Ok(record);
    }
    let number = number::parse(field).and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| bad_number(offset, name, field))
}

fn device(header: &RawHeader, offset: u64, records: &Records) -> Result<(u32, u32), TarError> {
    // The fields are not there in the oldest headers.
    let (major, minor) = match header.dialect() {
        Dialect::V7 => (&[][..], &[][..]),
        _ => (&header.devmajor[..], &header.devminor[..]),
    };
    Ok((
        number_or(records.devmajor, major, "devmajor", offset)?,
        number_or(records.devminor, minor, "devminor", offset)?,
    ))
}

/// The content of the current file; see [`Reader::read_data`].
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.read_data(out).map_err(std::io::Error::other)
    }
}
