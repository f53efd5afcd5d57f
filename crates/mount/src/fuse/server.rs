//! One request ⇒ its answer.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;
use zerocopy::IntoBytes as _;

use super::answer::{ReadReply, Reply, errno};
use super::device::Device;
use super::files::{Attributes, DirEntry, Files};
use super::protocol::{
    MAJOR, MINOR, MINOR_MIN, RawAttributes, RawAttributesOut, RawDirEntry, RawEntryOut, RawInitOut,
    RawOpenOut, RawStatFsOut, RawXattrOut, UNIQUE_RESEND, flag,
};
use super::request::{Malformed, Operation, decode};

/// Reads that the kernel may make ahead of readers at a time: enough for several large files to be read at
/// the network's speed, at most 64 MiB of answers.
pub const READS_MAX: u16 = 64;

/// Above it, the kernel makes only reads that somebody waits for: three quarters, as by its own default.
const CONGESTION: u16 = READS_MAX / 4 * 3;

/// Pages of one read at most: 1 MiB, the most that Linux allows without a setting.
const PAGES_MAX: u16 = 256;

/// The kernel's smallest. Nothing is ever written, but buffers must have room for it.
const WRITE_BYTES_MAX: u32 = 4096;

/// Bytes of a part of a directory's list at most, as of a read.
const LIST_BYTES_MAX: u32 = 1 << 20;

/// How long the kernel remembers what is final, in seconds: 68 years, which any clock of it can hold.
const FOR_EVER: u64 = 1 << 31;

/// What we know how to do, of what the kernel offers.
pub(super) const WANTED: u64 = flag::ASYNC_READ
    | flag::DO_READDIRPLUS
    | flag::READDIRPLUS_AUTO
    | flag::NO_OPEN_SUPPORT
    | flag::PARALLEL_DIROPS
    | flag::MAX_PAGES
    | flag::CACHE_SYMLINKS
    | flag::NO_OPENDIR_SUPPORT
    | flag::INIT_EXT
    | flag::HAS_RESEND;

/// Answers requests of one connection.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) device: Arc<Device>,
    pub(super) files: Arc<dyn Files>,
    /// How long the kernel may remember what we say, in seconds.
    valid: u64,
}

impl Server {
    pub(super) fn new(device: Arc<Device>, files: Arc<dyn Files>) -> Self {
        let valid = if files.is_final() { FOR_EVER } else { 0 };
        Self {
            device,
            files,
            valid,
        }
    }

    /// Answers a request, or sees to it that it will be.
    ///
    /// # Errors
    /// `InvalidData` if it is so malformed that nobody can be told.
    pub(super) fn serve(&self, request: &[u8]) -> io::Result<()> {
        let request = match decode(request) {
            Ok(request) => request,
            Err(Malformed::Request { unique }) => {
                tracing::error!(unique, "a malformed FUSE request");
                self.device.answer(unique, Err(Errno::INVAL));
                return Ok(());
            }
            Err(Malformed::Headless) => {
                let text = format!("a FUSE request of {} bytes", request.len());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        };
        let again = request.unique & UNIQUE_RESEND != 0;
        tracing::trace!(unique = request.unique, again, operation = ?request.operation);
        let reply = Reply::new(Arc::clone(&self.device), request.unique);
        let inode = request.inode;
        match request.operation {
            Operation::Read { offset, size } => self.read(inode, offset, size, reply),
            Operation::Silent => reply.none(),
            operation => {
                let result = self.answer(inode, operation);
                reply.send(result.as_deref().map_err(|error| *error));
            }
        }
        Ok(())
    }

    fn answer(&self, inode: u64, operation: Operation<'_>) -> Result<Vec<u8>, Errno> {
        let files = &*self.files;
        let said = |error: io::Error| errno(&error);
        Ok(match operation {
            Operation::Init {
                major,
                minor,
                flags,
                ..
            } => agree(major, minor, flags)?.as_bytes().to_vec(),
            Operation::Lookup { name } => match files.lookup(inode, name) {
                Ok(found) => self.entry(&found).as_bytes().to_vec(),
                // Inode 0: there is nothing, and this may be remembered.
                Err(error) if errno(&error) == Errno::NOENT && self.valid > 0 => {
                    let nothing = RawEntryOut {
                        entry_valid: self.valid,
                        ..RawEntryOut::default()
                    };
                    nothing.as_bytes().to_vec()
                }
                Err(error) => return Err(errno(&error)),
            },
            Operation::Attributes => {
                let out = RawAttributesOut {
                    valid: self.valid,
                    attributes: raw(&files.attributes(inode).map_err(said)?),
                    ..RawAttributesOut::default()
                };
                out.as_bytes().to_vec()
            }
            Operation::Target => files.target(inode).map_err(said)?,
            Operation::List { offset, size, plus } => self.list(inode, offset, size, plus)?,
            Operation::Xattr { name, size } => {
                sized(files.xattr(inode, name).map_err(|e| no_xattr(&e))?, size)?
            }
            Operation::XattrNames { size } => {
                let mut names = files.xattr_names(inode).map_err(|e| no_xattr(&e))?;
                names.iter_mut().for_each(|name| name.push(0));
                sized(names.concat(), size)?
            }
            Operation::Totals => self.totals().as_bytes().to_vec(),
            // Without an answer the kernel opens directories by itself and remembers their lists.
            Operation::OpenDirectory if self.valid > 0 => return Err(Errno::NOSYS),
            Operation::OpenDirectory => RawOpenOut::default().as_bytes().to_vec(),
            Operation::Release => Vec::new(),
            Operation::Change => return Err(Errno::ROFS),
            // `ENOSYS` makes the kernel do it by itself and never ask again: opening files, which then keep
            // their pages; seeking, checking permissions, interrupting.
            Operation::Unknown | Operation::Silent | Operation::Read { .. } => {
                return Err(Errno::NOSYS);
            }
        })
    }

    fn read(&self, inode: u64, offset: u64, size: u32, reply: Reply) {
        let bytes = match self.files.attributes(inode) {
            Ok(attributes) => attributes.bytes,
            Err(error) => return reply.send(Err(errno(&error))),
        };
        // The kernel asks for whole pages, also at the end of a file.
        let size = bytes.saturating_sub(offset).min(u64::from(size));
        match u32::try_from(size) {
            Ok(0) => reply.send(Ok(&[])),
            Ok(size) => {
                let expected = usize::try_from(size).unwrap_or(usize::MAX);
                let reply = ReadReply::new(reply, expected);
                self.files.read(inode, offset, size, reply);
            }
            Err(_) => reply.send(Err(Errno::INVAL)),
        }
    }

    fn list(&self, inode: u64, offset: u64, size: u32, plus: bool) -> Result<Vec<u8>, Errno> {
        let room = usize::try_from(size.min(LIST_BYTES_MAX)).map_err(|_| Errno::INVAL)?;
        let mut list = Vec::with_capacity(room);
        let mut add = |entry: DirEntry<'_>| {
            let prefix = if plus { size_of::<RawEntryOut>() } else { 0 };
            let len = prefix + size_of::<RawDirEntry>() + entry.name.len();
            let Ok(name_len) = u32::try_from(entry.name.len()) else {
                return false;
            };
            let end = list.len() + len.next_multiple_of(8);
            if end > room {
                return false;
            }
            if plus {
                // Of these two the kernel doesn't want to know more.
                let is_known = matches!(entry.name, b"." | b"..");
                let found = (!is_known).then(|| self.files.attributes(entry.inode).ok());
                // Inode 0: nothing is known about the entry but its name.
                let entry = found.flatten().map(|found| self.entry(&found));
                list.extend_from_slice(entry.unwrap_or_default().as_bytes());
            }
            let header = RawDirEntry {
                inode: entry.inode,
                next: entry.next,
                name_len,
                kind: entry.mode >> 12 & 0xF,
            };
            list.extend_from_slice(header.as_bytes());
            list.extend_from_slice(entry.name);
            list.resize(end, 0);
            true
        };
        let listed = self.files.list(inode, offset, &mut add);
        listed.map_err(|error| errno(&error))?;
        Ok(list)
    }

    fn entry(&self, found: &Attributes) -> RawEntryOut {
        RawEntryOut {
            inode: found.inode,
            entry_valid: self.valid,
            attributes_valid: self.valid,
            attributes: raw(found),
            ..RawEntryOut::default()
        }
    }

    fn totals(&self) -> RawStatFsOut {
        let totals = self.files.totals();
        RawStatFsOut {
            blocks: totals.bytes.div_ceil(4096),
            files: totals.inodes,
            block_bytes: 4096,
            fragment_bytes: 4096,
            name_max: 255,
            ..RawStatFsOut::default()
        }
    }
}

/// Whether we can serve a kernel of that version of the protocol.
pub(super) fn can_speak(major: u32, minor: u32) -> bool {
    major == MAJOR && minor >= MINOR_MIN
}

/// Agrees with the kernel on how to go on.
pub(super) fn agree(major: u32, minor: u32, offered: u64) -> Result<RawInitOut, Errno> {
    if !can_speak(major, minor) {
        return Err(Errno::PROTO);
    }
    let flags = offered & WANTED;
    let half = |flags: u64| u32::try_from(flags & u64::from(u32::MAX)).unwrap_or_default();
    Ok(RawInitOut {
        major: MAJOR,
        minor: MINOR.min(minor),
        // The kernel takes what it offers, or what its administrator has set since.
        readahead_max: u32::MAX,
        flags: half(flags),
        background_max: READS_MAX,
        congestion: CONGESTION,
        write_max: WRITE_BYTES_MAX,
        time_granularity: 1,
        pages_max: PAGES_MAX,
        flags_upper: half(flags >> 32),
        ..RawInitOut::default()
    })
}

fn raw(found: &Attributes) -> RawAttributes {
    let (major, minor) = found.rdev;
    // The protocol's times have no sign, but the kernel gives them one again.
    let time = found.mtime.cast_unsigned();
    RawAttributes {
        inode: found.inode,
        bytes: found.bytes,
        blocks: found.bytes.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        atime_nanos: found.mtime_nanos,
        mtime_nanos: found.mtime_nanos,
        ctime_nanos: found.mtime_nanos,
        mode: found.mode,
        nlink: found.nlink,
        uid: found.uid,
        gid: found.gid,
        rdev: minor & 0xFF | major << 8 | (minor & !0xFF) << 12,
        block_bytes: 4096,
        flags: 0,
    }
}

/// The value, or how long it is if somebody only asks that.
fn sized(value: Vec<u8>, room: u32) -> Result<Vec<u8>, Errno> {
    let size = u32::try_from(value.len()).map_err(|_| Errno::TOOBIG)?;
    match room {
        0 => Ok(RawXattrOut { size, padding: 0 }.as_bytes().to_vec()),
        _ if size > room => Err(Errno::RANGE),
        _ => Ok(value),
    }
}

fn no_xattr(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::NotFound => Errno::NODATA,
        io::ErrorKind::Unsupported => Errno::NOSYS,
        _ => errno(error),
    }
}
