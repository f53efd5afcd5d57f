//! What commands use to talk to the daemon, and to start one.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::control::{
    DaemonStatus, DfReport, MountRequest, MountStatus, REPLY_BYTES_MAX, Removed, Reply, Request,
};
use crate::layout::Layout;
use crate::trace::ImageTrace;

/// How long a daemon may take from its start to its first answer.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// How often we look whether it answers.
const START_POLL: Duration = Duration::from_millis(5);
/// Times that a request is sent again because the worker died under it.
const ATTEMPTS_MAX: u32 = 5;
/// Bytes of a daemon's log that an error quotes.
const LOG_QUOTE_BYTES: usize = 2000;

/// Why the daemon did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// None runs.
    #[error("no daemon runs for {root:?}")]
    NotRunning {
        /// The state directory.
        root: PathBuf,
    },
    /// One was started and ended at once.
    #[error("the daemon could not start: {log}")]
    Start {
        /// The end of its log.
        log: String,
    },
    /// A path can't be told to it.
    #[error("{path:?} can't be used: it is not UTF-8")]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// An upgrade did not work.
    #[error("the new program did not serve; the one before goes on: the daemon's log says more")]
    Upgrade,
    /// Talking to it failed.
    #[error("failed to talk to the daemon at {socket:?}")]
    Talk {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It answered something else than was asked.
    #[error("the daemon at {socket:?} gave an answer that this version does not understand")]
    Answer {
        /// Its socket.
        socket: PathBuf,
    },
    /// It refused or failed.
    #[error("{}", chain.join(": "))]
    Failed {
        /// The chain of reasons, the outermost first.
        chain: Vec<String>,
    },
}

/// The daemon of a state directory.
#[derive(Debug, Clone)]
pub struct Client {
    layout: Layout,
}

impl Client {
    /// The daemon of that directory, whether it runs or not.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { layout }
    }

    fn ask_once(&self, request: &Request) -> Result<Option<Reply>, ClientError> {
        let socket = self.layout.socket();
        let talk = |source| ClientError::Talk {
            socket: socket.clone(),
            source,
        };
        let mut stream = match UnixStream::connect(&socket) {
            Ok(stream) => stream,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Err(ClientError::NotRunning {
                    root: self.layout.root().to_path_buf(),
                });
            }
            Err(error) => return Err(talk(error)),
        };
        let mut line = serde_json::to_vec(request).map_err(|error| talk(error.into()))?;
        line.push(b'\n');
        if stream.write_all(&line).is_err() {
            return Ok(None);
        }
        let mut answer = Vec::new();
        match BufReader::new(stream)
            .take(REPLY_BYTES_MAX)
            .read_until(b'\n', &mut answer)
        {
            // The worker died with our request; the next one takes it again.
            Ok(0) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            result => result.map_err(talk)?,
        };
        match serde_json::from_slice(&answer) {
            Ok(Reply::Failed(chain)) => Err(ClientError::Failed { chain }),
            Ok(reply) => Ok(Some(reply)),
            Err(_) => Err(self.misunderstood()),
        }
    }

    fn ask(&self, request: &Request) -> Result<Reply, ClientError> {
        for _ in 0..ATTEMPTS_MAX {
            if let Some(reply) = self.ask_once(request)? {
                return Ok(reply);
            }
        }
        let source = io::Error::from(io::ErrorKind::ConnectionReset);
        Err(ClientError::Talk {
            socket: self.layout.socket(),
            source,
        })
    }

    fn misunderstood(&self) -> ClientError {
        ClientError::Answer {
            socket: self.layout.socket(),
        }
    }

    fn done(&self, reply: &Reply) -> Result<(), ClientError> {
        if *reply == Reply::Done {
            Ok(())
        } else {
            Err(self.misunderstood())
        }
    }

    /// Whether a daemon answers.
    ///
    /// # Errors
    /// [`ClientError`], but for "none runs".
    pub fn is_running(&self) -> Result<bool, ClientError> {
        match self.ask(&Request::Ping) {
            Ok(_) => Ok(true),
            Err(ClientError::NotRunning { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Starts a daemon in the background from `executable`, unless one runs, and waits until it answers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ensure_running(&self, executable: &Path) -> Result<(), ClientError> {
        if self.is_running()? {
            return Ok(());
        }
        let socket = self.layout.socket();
        let talk = |source| ClientError::Talk {
            socket: socket.clone(),
            source,
        };
        fs_err::create_dir_all(self.layout.root()).map_err(talk)?;
        let log = fs_err::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.layout.log())
            .map_err(talk)?;
        let begin = log.metadata().map_err(talk)?.len();
        let mut child = Command::new(executable)
            .arg("--root")
            .arg(self.layout.root())
            .arg("daemon")
            .current_dir("/")
            .env(
                "DRAUGHT_LOG",
                std::env::var("DRAUGHT_LOG").unwrap_or_else(|_| "info".to_owned()),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.into_parts().0)
            .process_group(0)
            .spawn()
            .map_err(talk)?;
        let deadline = Instant::now() + START_PATIENCE;
        while Instant::now() < deadline {
            if self.is_running()? {
                return Ok(());
            }
            // It may have ended because another one was faster.
            if child.try_wait().map_err(talk)?.is_some() && !self.is_running()? {
                break;
            }
            std::thread::sleep(START_POLL);
        }
        Err(ClientError::Start {
            log: self.quote_log(begin),
        })
    }

    fn quote_log(&self, begin: u64) -> String {
        let begin = usize::try_from(begin).unwrap_or(usize::MAX);
        let bytes = fs_err::read(self.layout.log()).unwrap_or_default();
        let new = bytes.get(begin..).unwrap_or_default();
        let quoted = new
            .get(new.len().saturating_sub(LOG_QUOTE_BYTES)..)
            .unwrap_or_default();
        String::from_utf8_lossy(quoted).trim().to_owned()
    }

    /// Mounts an image on a directory (an absolute path).
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn mount(&self, request: MountRequest) -> Result<MountStatus, ClientError> {
        // What is said and kept is JSON.
        let paths = request.origin.credentials.iter().map(PathBuf::as_path);
        for path in paths.chain([request.dir.as_path(), self.layout.root()]) {
            tellable(path)?;
        }
        match self.ask(&Request::Mount(request))? {
            Reply::Mounted(status) => Ok(status),
            _ => Err(self.misunderstood()),
        }
    }

    /// Removes an image that is not mounted from the store. `reference` is one that it was mounted by, or
    /// its digest.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn rm(&self, reference: &str) -> Result<Removed, ClientError> {
        let reference = reference.to_owned();
        self.removed(&Request::Rm { reference })
    }

    /// Removes what no image refers to, images that were not used for `unused_for`, and, if the store is larger
    /// than it may be, those that were used longest ago.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn gc(&self, unused_for: Option<Duration>) -> Result<Removed, ClientError> {
        let unused_for_s = unused_for.map(|unused_for| unused_for.as_secs());
        self.removed(&Request::Gc { unused_for_s })
    }

    fn removed(&self, request: &Request) -> Result<Removed, ClientError> {
        match self.ask(request)? {
            Reply::Removed(removed) => Ok(removed),
            _ => Err(self.misunderstood()),
        }
    }

    /// What the store holds, and for whom.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn df(&self) -> Result<DfReport, ClientError> {
        match self.ask(&Request::Df)? {
            Reply::Df(report) => Ok(report),
            _ => Err(self.misunderstood()),
        }
    }

    /// What was touched of an image so far, as the text of a profile.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn export_profile(&self, reference: &str) -> Result<String, ClientError> {
        let reference = reference.to_owned();
        self.text(&Request::ProfileExport { reference })
    }

    /// Says what a start of an image touches: it is prefetched when that is mounted next.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn import_profile(&self, reference: &str, text: &str) -> Result<(), ClientError> {
        self.done(&self.ask(&Request::ProfileImport {
            reference: reference.to_owned(),
            text: text.to_owned(),
        })?)
    }

    /// What happened since an image was mounted.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn trace(&self, reference: &str) -> Result<ImageTrace, ClientError> {
        let reference = reference.to_owned();
        match self.ask(&Request::Trace { reference })? {
            Reply::Trace(trace) => Ok(*trace),
            _ => Err(self.misunderstood()),
        }
    }

    /// The daemon's numbers in Prometheus' text format.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn metrics(&self) -> Result<String, ClientError> {
        self.text(&Request::Metrics)
    }

    fn text(&self, request: &Request) -> Result<String, ClientError> {
        match self.ask(request)? {
            Reply::Text(text) => Ok(text),
            _ => Err(self.misunderstood()),
        }
    }

    /// Unmounts it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn umount(&self, dir: &Path) -> Result<(), ClientError> {
        tellable(dir)?;
        self.done(&self.ask(&Request::Umount {
            dir: dir.to_path_buf(),
        })?)
    }

    /// The daemon and what is mounted.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn status(&self) -> Result<DaemonStatus, ClientError> {
        match self.ask(&Request::Ps)? {
            Reply::Status(status) => Ok(status),
            _ => Err(self.misunderstood()),
        }
    }

    /// Unmounts everything and stops the daemon; returns when it is gone. If something is in use,
    /// nothing is stopped.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn stop(&self) -> Result<(), ClientError> {
        self.done(&self.ask(&Request::Stop)?)?;
        let deadline = Instant::now() + START_PATIENCE;
        while self.layout.socket().exists() && Instant::now() < deadline {
            std::thread::sleep(START_POLL);
        }
        Ok(())
    }

    /// Replaces the worker by one of another executable, under load; returns when it serves.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn upgrade(&self, executable: &Path) -> Result<DaemonStatus, ClientError> {
        tellable(executable)?;
        let before = self.status()?.worker_pid;
        self.done(&self.ask(&Request::Upgrade {
            executable: executable.to_path_buf(),
        })?)?;
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let status = self.status()?;
            if status.worker_pid != before && runs(status.worker_pid, executable) {
                return Ok(status);
            }
            if status.worker_pid != before || Instant::now() > deadline {
                return Err(ClientError::Upgrade);
            }
            std::thread::sleep(START_POLL);
        }
    }
}

/// Whether that process runs that program.
fn runs(pid: u32, executable: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |path: &Path| {
        let found = fs_err::metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    };
    let running = identity(Path::new(&format!("/proc/{pid}/exe")));
    running.is_some() && running == identity(executable)
}

fn tellable(path: &Path) -> Result<(), ClientError> {
    if path.to_str().is_some() {
        return Ok(());
    }
    let path = path.to_path_buf();
    Err(ClientError::Path { path })
}
