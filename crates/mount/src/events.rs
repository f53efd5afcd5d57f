//! Taking reads of devices from the kernel and answering them.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use draught_sys::fanotify::{self, Answer, Denial, Event, Group};
use draught_sys::journal::{AREAS, Journal, Pending};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long a listener looks again and again after the last event before it sleeps. Waking a sleeper
/// costs more than most answers: measured, a factor of two on a tree of small files. In between it yields:
/// on two processors, the thread that decodes what readers wait for needs the one it looks on.
const SPIN: Duration = Duration::from_micros(100);

/// What the journal says of an event whose file nobody knows; no file has this inode number.
const UNKNOWN_INODE: u64 = 0;

/// A read that waits for its range of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// The number to answer with.
    pub descriptor: i32,
    /// Inode of the device's file; `None` when the process that knew is gone.
    pub inode: Option<u64>,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub count: u64,
    /// Whether `descriptor` is open in this process, and to be closed when answered.
    ours: bool,
}

/// Why events can't be served any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenerError {
    /// The kernel dropped events.
    #[error("the kernel's event queue overflowed: a reader may wait for ever")]
    Overflow,
    /// Reading or answering failed.
    #[error("the fanotify group failed")]
    Group(#[source] io::Error),
}

/// One group, its journal, and what a worker does with them.
#[derive(Debug)]
pub struct Listener {
    group: Arc<Group>,
    journal: Arc<Journal>,
}

impl Listener {
    /// A listener on a group whose events are noted in `journal`. Before the first [`Self::take`], and
    /// before the process has other threads, call [`Self::recover`].
    #[must_use]
    pub fn new(group: Arc<Group>, journal: Arc<Journal>) -> Self {
        Self { group, journal }
    }

    /// What earlier processes took and did not answer. Their numbers are occupied in this process, so
    /// that no new event gets one of them; each is to be answered like any other.
    ///
    /// # Errors
    /// [`ListenerError::Group`].
    pub fn recover(&self) -> Result<Vec<Read>, ListenerError> {
        for index in 0..AREAS {
            let area = self.journal.area(index);
            for event in fanotify::parse(&area.copy_all()) {
                let Event {
                    descriptor,
                    offset,
                    count,
                    ..
                } = event;
                if descriptor >= 0 && !self.journal.is_noted(descriptor) {
                    // Whoever took it died before it asked which file the event is about.
                    let inode = UNKNOWN_INODE;
                    let noted = self.journal.note(&Pending {
                        descriptor,
                        inode,
                        offset,
                        count,
                    });
                    debug_assert!(noted, "descriptor numbers are below the journal's size");
                }
            }
            area.clear_all();
        }
        let pending = self.journal.pending().into_iter();
        pending
            .map(
                |Pending {
                     descriptor,
                     inode,
                     offset,
                     count,
                 }| {
                    let ours =
                        fanotify::reserve_number(descriptor).map_err(ListenerError::Group)?;
                    let inode = Some(inode).filter(|inode| *inode != UNKNOWN_INODE);
                    Ok(Read {
                        descriptor,
                        inode,
                        offset,
                        count,
                        ours,
                    })
                },
            )
            .collect()
    }

    /// Waits for reads and takes them, at most as many as an area holds. Empty after `patience`
    /// without any. `area` must be the caller's alone.
    ///
    /// # Errors
    /// [`ListenerError`]: nothing can be served any more.
    pub fn take(&self, area: usize, patience: Duration) -> Result<Vec<Read>, ListenerError> {
        let area = self.journal.area(area);
        let mut spin_until = Instant::now() + SPIN;
        let len = loop {
            match self.group.read(&area) {
                Ok(len) => break len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() < spin_until {
                        std::thread::yield_now();
                        continue;
                    }
                    if !self.wait(patience)? {
                        return Ok(Vec::new());
                    }
                    spin_until = Instant::now() + SPIN;
                }
                Err(error) => return Err(ListenerError::Group(error)),
            }
        };
        let events = fanotify::parse(&area.copy(len));
        let mut reads = Vec::with_capacity(events.len());
        for event in events {
            reads.extend(self.note(event)?);
        }
        area.clear(len);
        Ok(reads)
    }

    /// Whether the group became readable in time.
    fn wait(&self, patience: Duration) -> Result<bool, ListenerError> {
        let group = self.group.as_fd();
        let mut fds = [PollFd::new(&group, PollFlags::IN)];
        let timeout = Timespec::try_from(patience).ok();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(errno) => Err(ListenerError::Group(errno.into())),
        }
    }

    fn note(&self, event: Event) -> Result<Option<Read>, ListenerError> {
        if event.overflow {
            return Err(ListenerError::Overflow);
        }
        if event.descriptor < 0 {
            // The kernel could not open the file for us and has let the reader fail.
            tracing::warn!(
                errno = -event.descriptor,
                "the kernel could not hand out an event"
            );
            return Ok(None);
        }
        let Event {
            descriptor,
            offset,
            count,
            ..
        } = event;
        let inode = match fanotify::identity(descriptor) {
            Ok((_, inode)) => inode,
            Err(error) => {
                let read = Read {
                    descriptor,
                    inode: None,
                    offset,
                    count,
                    ours: true,
                };
                self.answer(&read, Err(io::ErrorKind::Other))?;
                return Err(ListenerError::Group(error));
            }
        };
        if !self.journal.note(&Pending {
            descriptor,
            inode,
            offset,
            count,
        }) {
            tracing::warn!(descriptor, "an event's number is beyond the journal");
        }
        Ok(Some(Read {
            descriptor,
            inode: Some(inode),
            offset,
            count,
            ours: true,
        }))
    }

    /// Lets a reader go on, or fail. A reader that was killed in the meantime is no error.
    ///
    /// # Errors
    /// [`ListenerError::Group`].
    pub fn answer(
        &self,
        read: &Read,
        result: Result<(), io::ErrorKind>,
    ) -> Result<(), ListenerError> {
        let answer = match result {
            Ok(()) => Answer::Allow,
            Err(io::ErrorKind::StorageFull) => Answer::Deny(Denial::NoSpace),
            Err(_) => Answer::Deny(Denial::Io),
        };
        let answered = self.group.answer(read.descriptor, answer);
        self.journal.forget(read.descriptor);
        if read.ours {
            fanotify::close_event(read.descriptor);
        }
        answered.map(|_| ()).map_err(ListenerError::Group)
    }

    /// The group, to mark devices.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Whether there are events at all; without, everything else but [`Self::mark`] does nothing.
    #[must_use]
    pub fn raises_events(&self) -> bool {
        self.group.raises_events()
    }

    /// Marks a device's file: opens of it from now on raise events.
    ///
    /// # Errors
    /// What `fanotify_mark` says.
    pub fn mark(&self, file: &impl AsFd) -> io::Result<()> {
        self.group.mark(file.as_fd())
    }

    /// Takes a device's mark away.
    ///
    /// # Errors
    /// What `fanotify_mark` says.
    pub fn unmark(&self, file: &impl AsFd) -> io::Result<()> {
        if self.raises_events() {
            self.group.unmark(file.as_fd())?;
        }
        Ok(())
    }
}
