//! fanotify pre-content events: a reader of a marked file waits until it is answered.
//!
//! Origin: `fanotify(7)` and Linux's `include/uapi/linux/fanotify.h`, 6.15 or later for the range
//! record. What the kernel does beyond that was measured; `docs/read-path.md` has it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd as _, OwnedFd};

use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::journal::Area;

/// A read of file content is about to happen.
const FAN_PRE_ACCESS: u64 = 0x0010_0000;
/// The info record that carries the range about to be read.
const FAN_EVENT_INFO_TYPE_RANGE: u8 = 6;
/// The queue overflowed: an event was lost.
const FAN_Q_OVERFLOW: u64 = 0x4000;
/// Where an errno goes in a denial.
const ERRNO_SHIFT: u32 = 24;

/// An event group of the pre-content class.
///
/// When the last descriptor of a group closes, the kernel lets all waiting readers through: whoever
/// holds one decides whether holes are ever read.
#[derive(Debug)]
pub struct Group(OwnedFd);

/// How a reader is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The range is there: read on.
    Allow,
    /// The read fails. A reader of a filesystem on top of the marked file sees `EIO` whatever is
    /// said here; a direct reader sees this errno.
    Deny(Denial),
}

/// The errnos that the kernel accepts in a denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// `EIO`.
    Io,
    /// `ENOSPC`.
    NoSpace,
}

impl Answer {
    fn code(self) -> u32 {
        match self {
            Self::Allow => libc::FAN_ALLOW,
            Self::Deny(denial) => {
                let errno = match denial {
                    Denial::Io => libc::EIO,
                    Denial::NoSpace => libc::ENOSPC,
                };
                libc::FAN_DENY | errno.unsigned_abs() << ERRNO_SHIFT
            }
        }
    }
}

/// One event, as read from a group. `descriptor` is open in the process that read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The number under which the group remembers the event until it is answered; negative when the
    /// kernel could not open the file for us.
    pub descriptor: i32,
    /// Whether the kernel lost events: the group can't be trusted any more.
    pub overflow: bool,
    /// First byte about to be read.
    pub offset: u64,
    /// Bytes about to be read; 0 means "unknown".
    pub count: u64,
}

#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawMetadata {
    event_len: u32,
    vers: u8,
    reserved: u8,
    metadata_len: u16,

    mask: u64,

    fd: i32,
    pid: i32,
}
const _: () = assert!(size_of::<RawMetadata>() == 24);

#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawRange {
    info_type: u8,
    pad: u8,
    len: u16,
    pad2: u32,

    offset: u64,

    count: u64,
}
const _: () = assert!(size_of::<RawRange>() == 24);

/// The events in a buffer that a group was read into. Stops at the first that is not whole: the rest
/// of the buffer is zeros.
#[must_use]
pub fn parse(buffer: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut rest = buffer;
    while let Ok((metadata, _)) = RawMetadata::read_from_prefix(rest) {
        let len = usize::try_from(metadata.event_len).unwrap_or(usize::MAX);
        let Some(event) = rest.get(..len).filter(|_| len >= size_of::<RawMetadata>()) else {
            break;
        };
        let infos = event
            .get(usize::from(metadata.metadata_len)..)
            .unwrap_or_default();
        let (offset, count) = range(infos).unwrap_or((0, 0));
        let overflow = metadata.mask & FAN_Q_OVERFLOW != 0;
        events.push(Event {
            descriptor: metadata.fd,
            overflow,
            offset,
            count,
        });
        rest = rest.get(len..).unwrap_or_default();
    }
    events
}

fn range(mut infos: &[u8]) -> Option<(u64, u64)> {
    loop {
        let (&[info_type, _, low, high], _) = infos.split_first_chunk::<4>()?;
        if info_type == FAN_EVENT_INFO_TYPE_RANGE {
            let (record, _) = RawRange::read_from_prefix(infos).ok()?;
            return Some((record.offset, record.count));
        }
        let len = usize::from(u16::from(high) << 8 | u16::from(low));
        infos = infos.get(len..).filter(|_| len > 0)?;
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

impl Group {
    /// A new group; reads from it do not block. Needs `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// What `fanotify_init` says: `EINVAL` on kernels without pre-content events, `EPERM` without the
    /// capability, `EMFILE` when this user has 128 groups already.
    pub fn new() -> io::Result<Self> {
        let flags = libc::FAN_CLASS_PRE_CONTENT
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK
            // An overflow would lose an event that somebody waits on.
            | libc::FAN_UNLIMITED_QUEUE
            | libc::FAN_UNLIMITED_MARKS;
        let event_flags = libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC;
        // SAFETY: takes two integers and touches no memory of ours.
        let fd = unsafe { libc::fanotify_init(flags, event_flags.unsigned_abs()) };
        check(fd)?;
        // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// What stands in for a group where there can be none: it is passed on like one, and raises no events.
    ///
    /// # Errors
    /// What opening `/dev/null` says.
    pub fn none() -> io::Result<Self> {
        let null = std::fs::OpenOptions::new().read(true).open("/dev/null")?;
        Ok(Self(null.into()))
    }

    /// Whether this is a group and not [what stands in](Self::none) for one.
    #[must_use]
    pub fn raises_events(&self) -> bool {
        let is_device = |stat: &rustix::fs::Stat| {
            let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
            kind == rustix::fs::FileType::CharacterDevice
        };
        !rustix::fs::fstat(&self.0).is_ok_and(|stat| is_device(&stat))
    }

    /// A group from a descriptor that another process passed on.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The descriptor, to poll it or to pass it on.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.0.as_fd()
    }

    /// Reads of the file that `file` is open on raise events from now on, through descriptors that are
    /// opened later. Marking twice is marking once.
    ///
    /// # Errors
    /// What `fanotify_mark` says: `EOPNOTSUPP` where the filesystem can't do it.
    pub fn mark(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        self.change_mark(libc::FAN_MARK_ADD, file)
    }

    /// Takes the mark away; a file that has none is left as it is.
    ///
    /// # Errors
    /// What `fanotify_mark` says.
    pub fn unmark(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        match self.change_mark(libc::FAN_MARK_REMOVE, file) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }

    fn change_mark(&self, action: libc::c_uint, file: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: both descriptors are borrowed for the call; a null path means the descriptor itself.
        check(unsafe {
            libc::fanotify_mark(
                self.0.as_raw_fd(),
                action,
                FAN_PRE_ACCESS,
                file.as_raw_fd(),
                std::ptr::null(),
            )
        })
    }

    /// Reads events into an area of the journal, so that they outlive this process from the moment
    /// at which the kernel regards them as taken. Gives the number of bytes; `WouldBlock` when there
    /// is no event.
    ///
    /// # Errors
    /// What `read` says.
    pub fn read(&self, area: &Area<'_>) -> io::Result<usize> {
        // SAFETY: the area is mapped, writable and `len` bytes long for as long as it is borrowed.
        let result = unsafe { libc::read(self.0.as_raw_fd(), area.start().cast(), area.len()) };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    /// Answers the event that was read with this descriptor number, in this process or in one that is
    /// gone. Whether there was one: an event whose reader was killed is forgotten by the kernel.
    ///
    /// # Errors
    /// What `write` says, but for `ENOENT`.
    pub fn answer(&self, descriptor: i32, answer: Answer) -> io::Result<bool> {
        let response = libc::fanotify_response {
            fd: descriptor,
            response: answer.code(),
        };
        let len = size_of::<libc::fanotify_response>();
        // SAFETY: the response lives on this stack frame and `len` is its size.
        let written = unsafe { libc::write(self.0.as_raw_fd(), (&raw const response).cast(), len) };
        if written >= 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ENOENT) {
            Ok(false)
        } else {
            Err(error)
        }
    }
}

/// Closes an event's descriptor. The caller says that it came from an [`Event`] that this process read
/// and that nothing uses it any more.
pub fn close_event(descriptor: i32) {
    // SAFETY: closing a number is memory safe; the caller owns that number, see above.
    unsafe { libc::close(descriptor) };
}

/// Device and inode number of the file that an event's descriptor is open on.
///
/// # Errors
/// What `fstat` says.
pub fn identity(descriptor: i32) -> io::Result<(u64, u64)> {
    // SAFETY: the descriptor is open: it came from an event of this process and is not closed yet.
    let fd = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Occupies a descriptor number with `/dev/null`, so that the kernel can't give it to a new event while
/// an old one of that number waits. `false`: the number is in use, which serves as well.
///
/// # Errors
/// What `fcntl` says.
pub fn reserve_number(number: i32) -> io::Result<bool> {
    // Before anything is opened here: our own descriptor must not be taken for somebody's.
    // SAFETY: asks about a number; touches no memory.
    let used = unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
    if used {
        return Ok(false);
    }
    let null = std::fs::OpenOptions::new().read(true).open("/dev/null")?;
    if null.as_raw_fd() == number {
        // The lowest free number was the one that is wanted. It is closed by its number when answered.
        let _kept_open = null.into_raw_fd();
        return Ok(true);
    }
    // SAFETY: the number was free; this runs before the process has other threads that open files.
    check(unsafe { libc::dup3(null.as_raw_fd(), number, libc::O_CLOEXEC) })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(fd: i32, offset: u64, count: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(48u32.to_le_bytes());
        bytes.extend([3, 0]);
        bytes.extend(24u16.to_le_bytes());
        bytes.extend(FAN_PRE_ACCESS.to_le_bytes());
        bytes.extend(fd.to_le_bytes());
        bytes.extend(1i32.to_le_bytes());
        bytes.extend([FAN_EVENT_INFO_TYPE_RANGE, 0]);
        bytes.extend(24u16.to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes
    }

    #[test]
    fn events_are_parsed_up_to_the_first_that_is_not_there() {
        let mut bytes = event(7, 4096, 8192);
        bytes.extend(event(8, 0, 0));
        bytes.extend([0; 100]);
        let parsed = parse(&bytes);
        assert_eq!(parsed.len(), 2);
        assert_eq!(
            (parsed[0].descriptor, parsed[0].offset, parsed[0].count),
            (7, 4096, 8192)
        );
        assert_eq!(parsed[1].descriptor, 8);
    }

    #[test]
    fn torn_events_are_left_alone() {
        let whole = event(7, 4096, 8192);
        for len in 0..whole.len() {
            assert_eq!(parse(&whole[..len]), [], "{len} bytes");
        }
    }
}
