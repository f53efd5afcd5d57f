//! The program that is measured, as its users get it: a release build.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use draught_testkit::Process;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::measure;
use crate::run::{cargo, run, say, workspace};

/// How long the registry may take until it listens, on a busy machine.
const START_MAX: Duration = Duration::from_secs(30);

/// The program.
#[derive(Debug, Clone)]
pub(crate) struct Draught {
    binary: PathBuf,
}

impl Draught {
    /// Builds it.
    pub(crate) fn build() -> Result<Self> {
        say("building draught for release");
        let package = ["build", "--release", "--package", "draught", "--quiet"];
        run(cargo(&package).stdout(std::io::stderr()))?;
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let target = target.unwrap_or_else(|| workspace().join("target"));
        Self::at(&target.join("release/draught"))
    }

    /// One that is there already.
    pub(crate) fn at(binary: &Path) -> Result<Self> {
        let binary = fs_err::canonicalize(binary)?;
        Ok(Self { binary })
    }

    /// A command with all its state in `root`.
    pub(crate) fn command(&self, root: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(root);
        command.args(["--log", "error", "--progress", "none", "--format", "json"]);
        command.args(args);
        command
    }

    /// What `draught convert` does, with its temporary files in `scratch`.
    pub(crate) fn convert(&self, scratch: &Path, from: &str, to: &str, args: &[&str]) -> Command {
        let mut command = self.command(scratch, &["convert", "--scratch"]);
        command.arg(scratch).args(args).args([from, to]);
        command
    }
}

/// The embedded registry, as a process of its own.
#[derive(Debug)]
pub(crate) struct Registry {
    addr: SocketAddr,
    _process: Process,
}

impl Registry {
    /// Serves what is in `root`.
    pub(crate) fn start(draught: &Draught, root: &Path) -> Result<Self> {
        fs_err::create_dir_all(root)?;
        let mut command = draught.command(root, &["registry", "--listen", "127.0.0.1:0"]);
        let mut process = Process::start(&mut command, &root.join("registry.log"))?;
        let mut addr = None;
        let listening = |log: &str| {
            let said: Value = serde_json::from_str(log).ok()?;
            said.get("addr")?.as_str()?.parse().ok()
        };
        // A second borrow of the process is not to be had while it waits for itself.
        let log = root.join("registry.log");
        process.wait_until(START_MAX, || {
            addr = listening(&fs_err::read_to_string(&log).unwrap_or_default());
            addr.is_some()
        })?;
        Ok(Self {
            addr: addr.context("find the registry's address")?,
            _process: process,
        })
    }

    /// The reference of an image in it.
    pub(crate) fn reference(&self, name: &str) -> String {
        format!("{}/{name}:latest", self.addr)
    }
}

/// A daemon that `draught mount` starts by itself, with its one mount; both end with this.
#[derive(Debug)]
pub(crate) struct Daemon<'a> {
    draught: &'a Draught,
    root: PathBuf,
    dir: PathBuf,
    pids: Vec<u32>,
}

impl<'a> Daemon<'a> {
    /// Nothing runs yet; `root` and `dir` are new directories.
    pub(crate) fn new(draught: &'a Draught, root: &Path, dir: &Path) -> Result<Self> {
        fs_err::create_dir_all(root)?;
        fs_err::create_dir_all(dir)?;
        Ok(Self {
            draught,
            root: root.to_owned(),
            dir: dir.to_owned(),
            pids: Vec::new(),
        })
    }

    /// Where it mounts.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Mounts an image.
    pub(crate) fn mount(&self, reference: &str) -> Result<()> {
        let mut command = self.draught.command(&self.root, &["mount", reference]);
        measure::output(command.arg(&self.dir)).map(drop)
    }

    /// Unmounts it; the daemon goes on.
    pub(crate) fn unmount(&self) -> Result<()> {
        let mut command = self.draught.command(&self.root, &["umount"]);
        measure::output(command.arg(&self.dir)).map(drop)
    }

    fn status(&self) -> Result<Value> {
        let text = measure::output(&mut self.draught.command(&self.root, &["ps"]))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Its processes; from now on they can be ended even if the daemon does not answer.
    pub(crate) fn processes(&mut self) -> Result<&[u32]> {
        let status = self.status()?;
        let pid = |key: &str| status.get(key)?.as_u64()?.try_into().ok();
        self.pids = ["keeper_pid", "worker_pid"]
            .iter()
            .map(|key| pid(key).with_context(|| format!("find {key} in {status}")))
            .collect::<Result<_>>()?;
        Ok(&self.pids)
    }

    /// Whether everything is local.
    pub(crate) fn is_complete(&self) -> Result<bool> {
        let status = self.status()?;
        let bytes = |key: &str| status.get("mounts")?.get(0)?.get(key)?.as_u64();
        let (total, present) = (bytes("bytes_total"), bytes("bytes_present"));
        Ok(total.context("find bytes_total")? == present.context("find bytes_present")?)
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let stop = |args: &[&str]| measure::output(&mut self.draught.command(&self.root, args));
        // There may be no mount, or no daemon: what has to be gone is looked at below.
        drop(self.unmount());
        let stopped = stop(&["daemon", "--stop"]);
        if !draught_testkit::mounted::below(&self.dir).is_empty() {
            let flags = rustix::mount::UnmountFlags::DETACH;
            if let Err(error) = rustix::mount::unmount(&self.dir, flags) {
                say(&format!("{} stays mounted: {error}", self.dir.display()));
            }
        }
        let Err(error) = stopped else { return };
        for pid in &self.pids {
            // Nobody else's process, even if the number is used again.
            let exe = fs_err::read_link(format!("/proc/{pid}/exe"));
            if !exe.is_ok_and(|exe| exe == self.draught.binary) {
                continue;
            }
            say(&format!("killing {pid}, which did not stop: {error:#}"));
            let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw);
            if let Some(Err(error)) =
                pid.map(|pid| rustix::process::kill_process(pid, Signal::KILL))
            {
                say(&format!("it stays: {error}"));
            }
        }
    }
}
