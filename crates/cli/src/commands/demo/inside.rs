//! Running a program inside a directory tree, and how long it takes to say its first word.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use draught_oci::RunConfig;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::cancel::Cancel;
use crate::outcome::Outcome;

/// Name of the subcommand by which the program calls itself: changing the root directory has to
/// happen in a process of its own.
pub(crate) const SUBCOMMAND: &str = "demo-inside";

/// Bytes of a program's output that are kept: its first line.
const OUTPUT_BYTES_MAX: usize = 4096;

/// How long a program may take to its first output. A full pull is not part of it.
const FIRST_OUTPUT_MAX: Duration = Duration::from_secs(120);

/// How long a program may go on after its first output: a service would go on for ever.
const AFTER_OUTPUT_MAX: Duration = Duration::from_secs(2);

/// How often we look whether something has happened.
const POLL: Duration = Duration::from_millis(2);

/// Runs a program in another root directory; the demonstration calls this itself
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The new root directory
    root: PathBuf,
    /// Where to start, inside
    #[arg(long, default_value = "/")]
    workdir: PathBuf,
    /// NAME=VALUE of the environment; nothing else is in it
    #[arg(long)]
    env: Vec<OsString>,
    /// The program and its arguments
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

/// Becomes the program.
pub(crate) fn run(args: &Args) -> Result<Outcome> {
    let Some((program, arguments)) = args.command.split_first() else {
        bail!("run nothing");
    };
    std::env::set_current_dir(&args.root)
        .with_context(|| format!("enter {}", args.root.display()))?;
    rustix::process::chroot(".").context("change the root directory")?;
    std::env::set_current_dir(&args.workdir)
        .with_context(|| format!("enter {} inside", args.workdir.display()))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear();
    for pair in &args.env {
        if let Some((name, value)) = pair.to_str().and_then(|pair| pair.split_once('=')) {
            command.env(name, value);
        }
    }
    let error = command.exec();
    let program = program.to_string_lossy();
    Err(error).with_context(|| format!("run {program} inside {}", args.root.display()))
}

/// What is run inside.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// `NAME=VALUE`.
    pub(crate) env: Vec<String>,
    /// Where it starts.
    pub(crate) workdir: String,
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Ran {
    /// From its start to its first byte of output.
    pub(crate) first_output: Duration,
    /// The first line of its output.
    pub(crate) said: String,
}

/// A process that does not outlive us, nor do those that it starts: it leads a process group.
struct Running {
    child: Child,
    is_reaped: bool,
}

impl Running {
    /// Ends the whole group; how the leader ended.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        // The leader is not reaped yet, so its number can't be that of another group by now.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Nobody may be left, which is fine.
            kill_process_group(group, Signal::KILL).unwrap_or_default();
        }
        let status = self.child.wait()?;
        self.is_reaped = true;
        Ok(status)
    }

    /// Waits for the end; gives none if the program was still running when it had had its time.
    fn end(&mut self, cancel: &Cancel) -> Result<Option<ExitStatus>> {
        let start = Instant::now();
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.context("wait for the program")?;
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while start.elapsed() < AFTER_OUTPUT_MAX {
            let ended = waitid(WaitId::Pid(pid), look).context("wait for the program")?;
            if ended.is_some() {
                return Ok(Some(self.reap()?));
            }
            cancel.check()?;
            std::thread::sleep(POLL);
        }
        Ok(None)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.reap().map(drop).unwrap_or_default();
        }
    }
}

impl Program {
    /// What an image's configuration says to run, or `command` if there is one.
    pub(crate) fn of(config: &RunConfig, command: &[String]) -> Result<Self> {
        let command = match command {
            [] => [config.entrypoint.as_slice(), config.cmd.as_slice()].concat(),
            command => command.to_vec(),
        };
        if command.is_empty() {
            bail!("run the image: its configuration has no command; give one after --");
        }
        Ok(Self {
            command,
            env: config.env.clone(),
            workdir: match config.working_dir.as_str() {
                "" => "/".to_owned(),
                workdir => workdir.to_owned(),
            },
        })
    }

    /// Runs it in a tree until it ends, or until shortly after its first output.
    pub(crate) fn time(&self, root: &Path, cancel: &Cancel) -> Result<Ran> {
        let own = std::env::current_exe().context("find this program")?;
        let start = Instant::now();
        let mut command = Command::new(own);
        command.arg(SUBCOMMAND).arg("--workdir").arg(&self.workdir);
        for pair in &self.env {
            command.arg(format!("--env={pair}"));
        }
        let child = command
            .arg(root)
            .arg("--")
            .args(&self.command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .process_group(0)
            .spawn()
            .context("start the program")?;
        let mut running = Running {
            child,
            is_reaped: false,
        };
        let output = listen(&mut running.child);
        let first = loop {
            match output.recv_timeout(POLL) {
                Ok(piece) => break Some((start.elapsed(), piece)),
                Err(mpsc::RecvTimeoutError::Disconnected) => break None,
                Err(mpsc::RecvTimeoutError::Timeout) => cancel.check()?,
            }
            if start.elapsed() > FIRST_OUTPUT_MAX {
                bail!("see output of {:?} within two minutes", self.command);
            }
        };
        let status = running.end(cancel)?;
        let failed = status.filter(|status| !status.success());
        match (first, failed) {
            (Some((first_output, mut said)), None) => {
                said.extend(output.try_iter().flatten().take(OUTPUT_BYTES_MAX));
                let said = String::from_utf8_lossy(&said);
                let said = said.lines().next().unwrap_or_default().to_owned();
                Ok(Ran { first_output, said })
            }
            (_, Some(status)) => bail!("run {:?} inside: it ended with {status}", self.command),
            (None, None) => bail!("see output of {:?}: it has none", self.command),
        }
    }
}

/// Reads a program's output in a thread of its own, piece by piece.
fn listen(child: &mut Child) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    if let Some(mut stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            let mut left = OUTPUT_BYTES_MAX;
            while let Ok(bytes @ 1..) = stdout.read(&mut buffer) {
                let kept = buffer.get(..bytes.min(left)).unwrap_or_default();
                left -= kept.len();
                // Nobody listens any more: go on reading, or the program would die of it.
                sender.send(kept.to_vec()).unwrap_or_default();
            }
        });
    }
    receiver
}
