//! From entries to an archive.

use std::fmt;
use std::io::{self, Write};

use draught_tree::{Entry, EntryKind};

use crate::BLOCK_BYTES;
use crate::error::WriteError;
use crate::extra::Extra;
use crate::header::{MAGIC_USTAR, RawHeader, RawUstar, show};
use crate::number;
use crate::pax::push_record;

/// Encodes an archive: ustar headers, with pax headers before those entries that need one. The same
/// entries give the same bytes, always.
///
/// [`Writer::entry`] writes an entry; if it is a file, exactly its size must then be written by
/// [`Writer::data`] (or through [`Write`]) before the next. [`Writer::finish`] ends the archive.
pub struct Writer<W> {
    out: W,
    offset: u64,
    /// What the current file still lacks.
    data_left: u64,
    padding: usize,
}

impl<W> fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("offset", &self.offset)
            .field("data_left", &self.data_left)
            .finish_non_exhaustive()
    }
}

const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// A header without content.
fn empty(typeflag: u8) -> RawHeader {
    let mut header = RawHeader {
        name: [0; 100],
        mode: [0; 8],
        uid: [0; 8],
        gid: [0; 8],
        size: [0; 12],
        mtime: [0; 12],
        checksum: [0; 8],
        typeflag,
        linkname: [0; 100],
        magic: MAGIC_USTAR,
        uname: [0; 32],
        gname: [0; 32],
        devmajor: [0; 8],
        devminor: [0; 8],
        rest: [0; 167],
    };
    for field in [
        &mut header.mode[..],
        &mut header.uid[..],
        &mut header.gid[..],
        &mut header.size[..],
        &mut header.mtime[..],
        &mut header.devmajor[..],
        &mut header.devminor[..],
    ] {
        number::print_octal(field, 0);
    }
    header
}

/// Copies if it fits.
fn put(field: &mut [u8], bytes: &[u8]) -> bool {
    let Some(field) = field.get_mut(..bytes.len()) else {
        return false;
    };
    field.copy_from_slice(bytes);
    true
}

/// Puts a path into name and prefix, if it fits.
fn put_path(header: &mut RawHeader, path: &[u8]) -> bool {
    if put(&mut header.name, path) {
        return true;
    }
    let rest: &mut RawUstar = zerocopy::transmute_mut!(&mut header.rest);
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let fitting = slashes
        .map(|(at, _)| path.split_at(at))
        .find(|(prefix, name)| {
            // The slash between them is in neither field.
            (1..=rest.prefix.len()).contains(&prefix.len())
                && (2..=header.name.len() + 1).contains(&name.len())
        });
    let Some((prefix, name)) = fitting else {
        return false;
    };
    put(&mut rest.prefix, prefix) && put(&mut header.name, name.get(1..).unwrap_or_default())
}

fn check_name(path: &[u8], what: &'static str, name: &[u8]) -> Result<(), WriteError> {
    if name.is_empty() || name.contains(&0) {
        let path = show(path);
        return Err(WriteError::Name { path, what });
    }
    Ok(())
}

impl<W: Write> Writer<W> {
    /// A writer at the start of an archive. It writes piece by piece: give it a buffered `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            offset: 0,
            data_left: 0,
            padding: 0,
        }
    }

    /// How many bytes were written.
    pub fn position(&self) -> u64 {
        self.offset
    }

    /// Writes an entry's headers. A directory gets a slash behind its path, the empty path is the
    /// root. Of a hard link only path and target matter to readers, the rest is written all the same.
    ///
    /// # Errors
    /// See [`WriteError`]; [`WriteError::Size`] if the file before is not complete.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), WriteError> {
        self.entry_with(entry, &Extra::default())
    }

    /// As [`Writer::entry`], with what an archive can say besides.
    ///
    /// # Errors
    /// As [`Writer::entry`].
    pub fn entry_with(&mut self, entry: &Entry, extra: &Extra) -> Result<(), WriteError> {
        self.end_file()?;
        let mut path = entry.path.to_vec();
        if path.is_empty() {
            path = b".".to_vec();
        }
        if entry.kind == EntryKind::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        check_name(&path, "path", &path)?;
        let (header, records) = encode(&path, entry, extra)?;
        if !records.is_empty() {
            let mut pax = empty(b'x');
            let name = [b"PaxHeaders/".as_slice(), &path].concat();
            // Nobody uses this name but unpackers that don't know pax; it need not be whole.
            put(&mut pax.name, name.get(..99).unwrap_or(&name));
            number::print_octal(&mut pax.mode, 0o644);
            number::print_octal(&mut pax.size, records.len() as u64);
            pax.seal();
            self.write(zerocopy::IntoBytes::as_bytes(&pax))?;
            self.write(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.write(zerocopy::IntoBytes::as_bytes(&header))?;
        if let EntryKind::File { bytes, .. } = entry.kind {
            self.data_left = bytes;
            self.padding = padding(bytes);
        }
        Ok(())
    }

    /// Writes the next bytes of the current file.
    ///
    /// # Errors
    /// [`WriteError::Size`] if they are more than the file has left; [`WriteError::Io`].
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let left = self.data_left.checked_sub(bytes.len() as u64);
        let Some(left) = left else {
            return Err(WriteError::Size {
                offset: self.offset,
                bytes_left: self.data_left,
                bytes: bytes.len() as u64,
            });
        };
        self.write(bytes)?;
        self.data_left = left;
        Ok(())
    }

    /// Ends the archive and gives back what it was written to, flushed.
    ///
    /// # Errors
    /// [`WriteError::Size`] if the last file is not complete; [`WriteError::Io`].
    pub fn finish(mut self) -> Result<W, WriteError> {
        self.end_file()?;
        self.write(&ZEROS)?;
        self.write(&ZEROS)?;
        let offset = self.offset;
        let flushed = self.out.flush();
        flushed.map_err(|source| WriteError::Io { offset, source })?;
        Ok(self.out)
    }

    fn end_file(&mut self) -> Result<(), WriteError> {
        if self.data_left > 0 {
            return Err(WriteError::Size {
                offset: self.offset,
                bytes_left: self.data_left,
                bytes: 0,
            });
        }
        let padding = std::mem::take(&mut self.padding);
        self.write(ZEROS.get(..padding).unwrap_or_default())
    }

    fn pad(&mut self, bytes: u64) -> Result<(), WriteError> {
        self.write(ZEROS.get(..padding(bytes)).unwrap_or_default())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let offset = self.offset;
        let written = self.out.write_all(bytes);
        written.map_err(|source| WriteError::Io { offset, source })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

fn padding(bytes: u64) -> usize {
    let block = BLOCK_BYTES as u64;
    // Below 512, which any usize holds.
    usize::try_from(bytes.wrapping_neg() % block).unwrap_or_default()
}

/// Puts the names of owner and group where they fit.
fn put_owners(header: &mut RawHeader, extra: &Extra, record: &mut dyn FnMut(&[u8], &[u8])) {
    for (keyword, field, name) in [
        (&b"uname"[..], &mut header.uname, &extra.user),
        (b"gname", &mut header.gname, &extra.group),
    ] {
        // A NUL has to follow.
        if name.len() >= field.len() || !put(field, name) {
            record(keyword, name);
        }
    }
}

/// Puts extended attributes into records.
fn put_xattrs(
    path: &[u8],
    entry: &Entry,
    record: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<(), WriteError> {
    for (name, value) in &entry.meta.xattrs {
        if name.is_empty() || name.contains(&0) || name.contains(&b'=') {
            return Err(WriteError::Xattr {
                path: show(path),
                name: show(name),
            });
        }
        record(&[b"SCHILY.xattr.", name.as_ref()].concat(), value);
    }
    Ok(())
}

/// An entry's header, and the pax records that say what does not fit in it.
fn encode(path: &[u8], entry: &Entry, extra: &Extra) -> Result<(RawHeader, Vec<u8>), WriteError> {
    let typeflag = match &entry.kind {
        EntryKind::File { .. } => b'0',
        EntryKind::HardLink(_) => b'1',
        EntryKind::Symlink(_) => b'2',
        EntryKind::CharDevice { .. } => b'3',
        EntryKind::BlockDevice { .. } => b'4',
        EntryKind::Directory => b'5',
        EntryKind::Fifo => b'6',
        EntryKind::Socket => return Err(WriteError::Socket { path: show(path) }),
    };
    let mut header = empty(typeflag);
    let mut long = Vec::new();
    let mut record = |keyword: &[u8], value: &[u8]| push_record(&mut long, keyword, value);
    let meta = &entry.meta;

    if !put_path(&mut header, path) {
        record(b"path", path);
        put(&mut header.name, path.get(..99).unwrap_or(path));
    }
    if let EntryKind::HardLink(target) | EntryKind::Symlink(target) = &entry.kind {
        check_name(path, "target", target)?;
        if !put(&mut header.linkname, target) {
            record(b"linkpath", target);
            put(&mut header.linkname, target.get(..99).unwrap_or(target));
        }
    }
    if let EntryKind::File { bytes, .. } = entry.kind
        && !number::print_octal(&mut header.size, bytes)
    {
        record(b"size", bytes.to_string().as_bytes());
    }
    number::print_octal(&mut header.mode, u64::from(meta.mode));
    if !number::print_octal(&mut header.uid, u64::from(meta.uid)) {
        record(b"uid", meta.uid.to_string().as_bytes());
    }
    if !number::print_octal(&mut header.gid, u64::from(meta.gid)) {
        record(b"gid", meta.gid.to_string().as_bytes());
    }
    let whole = u64::try_from(meta.mtime).ok();
    let whole = whole.filter(|seconds| number::print_octal(&mut header.mtime, *seconds));
    if whole.is_none() || meta.mtime_nsec != 0 {
        record(
            b"mtime",
            number::print_time(meta.mtime, meta.mtime_nsec).as_bytes(),
        );
    }
    if let EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } =
        entry.kind
    {
        if !number::print_octal(&mut header.devmajor, u64::from(major)) {
            record(b"SCHILY.devmajor", major.to_string().as_bytes());
        }
        if !number::print_octal(&mut header.devminor, u64::from(minor)) {
            record(b"SCHILY.devminor", minor.to_string().as_bytes());
        }
    }
    put_owners(&mut header, extra, &mut record);
    put_xattrs(path, entry, &mut record)?;
    for (keyword, value) in &extra.records {
        record(keyword, value);
    }
    header.seal();
    let is_utf8 = std::str::from_utf8(path).is_ok()
        && match &entry.kind {
            EntryKind::HardLink(target) | EntryKind::Symlink(target) => {
                std::str::from_utf8(target).is_ok()
            }
            _ => true,
        };
    if is_utf8 || long.is_empty() {
        return Ok((header, long));
    }
    // POSIX' way to say that names in these records are bytes and not UTF-8; must come first.
    let mut records = Vec::new();
    push_record(&mut records, b"hdrcharset", b"BINARY");
    records.append(&mut long);
    Ok((header, records))
}

/// The content of the current file; see [`Writer::data`].
impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.data(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
