//! The threads that serve a connection.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};

use super::device::{Device, Taken};
use super::files::Files;
use super::request::{Operation, decode};
use super::server::Server;

/// Bytes of a buffer for requests: twice the kernel's smallest. All requests to a filesystem that nobody can
/// write to fit; the kernel refuses others by itself.
const BUFFER_BYTES: usize = 16 << 10;

/// How long the kernel may take for its first request, which it makes while mounting.
const FIRST_REQUEST_MAX: Duration = Duration::from_secs(10);

/// How a session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The filesystem was just mounted: kernel and server have to agree first.
    New,
    /// Another process served the descriptor before, whether it is still there or was killed. What it took and did
    /// not answer is asked for again; should it answer yet, the first answer counts.
    Resumed,
}

/// How a session ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum End {
    /// The filesystem is gone.
    Unmounted,
    /// Somebody wanted it to end; the filesystem is still there.
    Stopped,
    /// The descriptor failed.
    Failed(Arc<io::Error>),
}

/// Threads that read requests from one descriptor. Stopped when dropped.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    is_stopping: AtomicBool,
    /// Readable from then on, to wake whoever sleeps.
    stop: OwnedFd,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    running: usize,
    end: Option<End>,
}

impl Session {
    /// Starts `threads` threads that serve `files` to the kernel, at least one. The descriptor is closed when
    /// they have ended and every read was answered; other processes may have it too.
    ///
    /// # Errors
    /// What the system says; `Unsupported` where the kernel speaks an older FUSE, or where a session is to be
    /// resumed and the kernel is older than Linux 6.9.
    pub fn start(
        fd: OwnedFd,
        files: Arc<dyn Files>,
        start: Start,
        threads: usize,
    ) -> io::Result<Self> {
        let device = Arc::new(Device::new(fd)?);
        let server = Server::new(Arc::clone(&device), files);
        match start {
            Start::New => shake_hands(&server)?,
            Start::Resumed => device.ask_again()?,
        }
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            is_stopping: AtomicBool::new(false),
            stop: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            state: Mutex::new(State {
                running: threads,
                end: None,
            }),
            ended: Condvar::new(),
        });
        let mut session = Self {
            shared,
            threads: Vec::new(),
        };
        for index in 0..threads {
            let spawned = session.spawn(index, server.clone());
            if let Err(error) = spawned {
                session.shared.state.lock().running -= threads - index;
                return Err(error);
            }
        }
        Ok(session)
    }

    fn spawn(&mut self, index: usize, server: Server) -> io::Result<()> {
        let waiting = Waiting::new(&server.device, &self.shared.stop)?;
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name(format!("fuse-{index}"));
        self.threads.push(thread.spawn(move || {
            let end = serve(&server, &waiting, &shared.is_stopping).unwrap_or_else(|error| {
                tracing::error!(%error, "a FUSE session failed");
                End::Failed(Arc::new(error))
            });
            drop(server);
            shared.thread_ended(end);
        })?);
        Ok(())
    }

    /// Waits until all threads have ended.
    #[must_use]
    pub fn wait(&self) -> End {
        let mut state = self.shared.state.lock();
        loop {
            match &state.end {
                Some(end) if state.running == 0 => return end.clone(),
                _ => self.shared.ended.wait(&mut state),
            }
        }
    }

    /// How it ended, or nothing if it goes on for `patience`.
    #[must_use]
    pub fn wait_for(&self, patience: Duration) -> Option<End> {
        let until = Instant::now() + patience;
        let mut state = self.shared.state.lock();
        while state.running > 0 {
            if self.shared.ended.wait_until(&mut state, until).timed_out() {
                return None;
            }
        }
        state.end.clone()
    }

    /// Takes no more requests, finishes those that threads are at, and ends; nothing is unmounted. Reads may still be
    /// answered afterwards, as long as no other session has asked for them again.
    #[must_use]
    pub fn stop(mut self) -> End {
        self.shared.stop();
        self.join();
        self.wait()
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            // They catch panics.
            drop(thread.join());
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.stop();
        self.join();
    }
}

impl Shared {
    fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        if let Err(error) = rustix::io::write(&self.stop, &[1, 0, 0, 0, 0, 0, 0, 0]) {
            tracing::error!(%error, "failed to stop a FUSE session");
        }
    }

    fn thread_ended(&self, end: End) {
        if !matches!(end, End::Stopped) {
            // One that failed can't be left to fewer threads in silence.
            self.stop();
        }
        let mut state = self.state.lock();
        state.running -= 1;
        // What happened first is the reason.
        state.end.get_or_insert(end);
        self.ended.notify_all();
    }
}

/// Waits for the kernel's first request, and answers it.
fn shake_hands(server: &Server) -> io::Result<()> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the kernel doesn't begin");
    let mut buffer = buffer();
    let patience = Timespec::try_from(FIRST_REQUEST_MAX).map_err(io::Error::other)?;
    let fd = server.device.as_fd();
    if poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&patience))? == 0 {
        return Err(late());
    }
    let request = match server.device.take(&mut buffer)? {
        Taken::Request(len) => buffer.get(..len).unwrap_or_default(),
        Taken::Nothing => return Err(late()),
        Taken::Unmounted => return Err(rustix::io::Errno::NODEV.into()),
    };
    match decode(request).map(|request| request.operation) {
        Ok(Operation::Init { major, minor, .. }) => {
            server.serve(request)?;
            if !super::server::can_speak(major, minor) {
                let text = format!("this kernel speaks FUSE {major}.{minor}: needs 7.31 or later");
                return Err(io::Error::new(io::ErrorKind::Unsupported, text));
            }
            Ok(())
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a FUSE session that somebody else began can only be resumed",
        )),
    }
}

/// What a thread sleeps on. Of all that sleep on the descriptor, one is woken by a request.
struct Waiting {
    epoll: OwnedFd,
}

impl Waiting {
    fn new(device: &Device, stop: &OwnedFd) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let (data, flags) = (epoll::EventData::new_u64(0), epoll::EventFlags::IN);
        let alone = flags | epoll::EventFlags::EXCLUSIVE;
        epoll::add(&epoll, device.as_fd(), data, alone)?;
        epoll::add(&epoll, stop, data, flags)?;
        Ok(Self { epoll })
    }

    /// Sleeps until there may be something to do.
    fn wait(&self) -> io::Result<()> {
        let mut events = [MaybeUninit::uninit(); 2];
        match epoll::wait(&self.epoll, &mut events, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Memory that was written to: the kernel copies requests into it even if the process is being killed.
/// Had it to be found first, the request would fail, and nobody would get it again.
fn buffer() -> Vec<u8> {
    vec![0xFF; BUFFER_BYTES]
}

fn serve(server: &Server, waiting: &Waiting, is_stopping: &AtomicBool) -> io::Result<End> {
    let mut buffer = buffer();
    while !is_stopping.load(Ordering::Acquire) {
        let request = match server.device.take(&mut buffer)? {
            Taken::Request(len) => buffer.get(..len).unwrap_or_default(),
            Taken::Unmounted => return Ok(End::Unmounted),
            Taken::Nothing => {
                waiting.wait()?;
                continue;
            }
        };
        // A bug in serving one request costs this request alone: it is answered with an error as the duty to
        // answer it is dropped.
        catch_unwind(AssertUnwindSafe(|| server.serve(request))).unwrap_or_else(|_panic| {
            tracing::error!("serving a FUSE request panicked");
            Ok(())
        })?;
    }
    Ok(End::Stopped)
}
