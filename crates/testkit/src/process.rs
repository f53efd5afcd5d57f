//! Programs that run for as long as a guard lives.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal};

/// Bytes of a program's log that an error quotes: the end, where the reason is.
const LOG_TAIL_BYTES: usize = 4096;

/// How long a program may take to end after SIGTERM before it gets SIGKILL.
const TERM_MAX: Duration = Duration::from_secs(10);

/// A program that was started here; killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to the file `log`.
    ///
    /// # Errors
    ///
    /// If it can't be started.
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let out = fs_err::File::create(log)?.into_file();
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("failed to start {name}"))?;
        Ok(Self {
            child,
            name,
            log: log.to_owned(),
        })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = fs_err::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How it ended, or nothing while it runs.
    ///
    /// # Errors
    ///
    /// If the process can't be waited for.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until `ready` is true.
    ///
    /// # Errors
    ///
    /// With the end of its log, if the program ended or took longer than `timeout`.
    pub fn wait_until(
        &mut self,
        timeout: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !ready() {
            if let Some(status) = self.ended()? {
                bail!("{} ended with {status}: {}", self.name, self.log_tail());
            }
            if begun.elapsed() > timeout {
                bail!("{} is not ready: {}", self.name, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Waits until it accepts connections at the unix socket `path`.
    ///
    /// # Errors
    ///
    /// As [`wait_until`](Self::wait_until).
    pub fn wait_for_socket(&mut self, path: &Path) -> anyhow::Result<()> {
        self.wait_until(crate::net::START_MAX, || UnixStream::connect(path).is_ok())
    }

    /// Sends `signal`.
    ///
    /// # Errors
    ///
    /// If the process has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        rustix::process::kill_process(self.pid()?, signal)
            .with_context(|| format!("failed to signal {}", self.name))
    }

    /// Asks it to end (SIGTERM), insists after ten seconds (SIGKILL), and says how it ended.
    ///
    /// # Errors
    ///
    /// If the process can't be waited for.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        let begun = Instant::now();
        while begun.elapsed() < TERM_MAX {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("the process id is not one")
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let from = log.len().saturating_sub(LOG_TAIL_BYTES);
        let from = (from..log.len()).find(|&at| log.is_char_boundary(at));
        log[from.unwrap_or(0)..].to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has been reaped already, which is what they are for.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs `command` to its end and returns what it printed on standard output.
///
/// # Panics
///
/// With the command and everything it printed, if it fails.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("failed to run {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scratch;

    fn sleeper(scratch: &Scratch) -> Process {
        Process::start(Command::new("sleep").arg("60"), &scratch.join("log")).unwrap()
    }

    #[test]
    fn a_process_ends_with_its_guard() {
        let scratch = Scratch::new();
        let process = sleeper(&scratch);
        let proc_dir = PathBuf::from(format!("/proc/{}", process.id()));
        assert!(proc_dir.exists());
        drop(process);
        assert!(!proc_dir.exists());
    }

    #[test]
    fn stop_ends_by_sigterm() {
        use std::os::unix::process::ExitStatusExt as _;
        let scratch = Scratch::new();
        let status = sleeper(&scratch).stop().unwrap();
        assert_eq!(status.signal(), Some(15));
    }

    #[test]
    fn a_program_that_dies_at_its_start_is_reported_with_its_words() {
        let scratch = Scratch::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such luck >&2; exit 3"]);
        let mut process = Process::start(&mut command, &scratch.join("log")).unwrap();
        let error = process
            .wait_until(Duration::from_secs(20), || false)
            .unwrap_err();
        assert!(error.to_string().contains("no such luck"), "{error}");
    }
}
