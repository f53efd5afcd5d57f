//! The program that is measured, with a state directory of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use draught_testkit::{Process, Scratch};
use serde_json::Value;

/// How long the registry may take to start.
const START_MAX: Duration = Duration::from_secs(30);

/// The program.
#[derive(Debug)]
pub(crate) struct Program {
    file: PathBuf,
    root: PathBuf,
}

impl Program {
    pub(crate) fn new(file: &Path, scratch: &Scratch) -> Self {
        Self {
            file: file.to_owned(),
            root: scratch.join("state"),
        }
    }

    /// The same program with nothing in its state directory.
    pub(crate) fn forget(&self) -> Result<()> {
        if self.root.exists() {
            fs_err::remove_dir_all(&self.root)?;
        }
        Ok(())
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.file);
        command.args(["--progress", "none", "--format", "json", "--root"]);
        command.arg(&self.root).args(args).stdin(Stdio::null());
        command
    }

    /// Runs it; what it prints.
    pub(crate) fn run(&self, args: &[&str]) -> Result<Value> {
        // Not through a pipe for standard error: a daemon that it starts would hold it open.
        let output = self.command(args).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            bail!("run draught {args:?}: {}", output.status);
        }
        if output.stdout.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&output.stdout).context("read what draught printed")
    }

    /// Its registry, with its content in `dir`; the address.
    pub(crate) fn registry(&self, dir: &Path) -> Result<(Process, String)> {
        let mut command = Command::new(&self.file);
        command
            .arg("--root")
            .arg(dir)
            .args(["registry", "--listen", "127.0.0.1:0"]);
        let log = dir.join("registry.log");
        let mut process = Process::start(&mut command, &log)?;
        let address = || fs_err::read_to_string(&log).unwrap_or_default();
        process.wait_until(START_MAX, || address().ends_with('\n'))?;
        let address = address().trim().to_owned();
        Ok((process, address))
    }
}
