//! A node: a daemon with a state directory of its own and all that it mounts. It ends with its guard.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use draught_testkit::Process;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::draught::Draught;
use super::measure;
use crate::run::say;

/// How long a daemon may take until it answers, on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);

/// How often is looked at what can't be waited for.
const POLL: Duration = Duration::from_millis(20);

/// A daemon, and what it mounted.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    draught: &'a Draught,
    root: PathBuf,
    env: Vec<(&'static str, &'static str)>,
    /// Where containerd may ask it for snapshots.
    snapshotter: Option<PathBuf>,
    dirs: Vec<PathBuf>,
    pids: Vec<u32>,
    /// Dropped last: what does not stop when it is asked to is killed.
    daemon: Option<Process>,
}

impl<'a> Node<'a> {
    /// Nothing runs yet; `root` is made.
    pub(crate) fn new(draught: &'a Draught, root: &Path) -> Result<Self> {
        fs_err::create_dir_all(root)?;
        Ok(Self {
            draught,
            root: root.to_owned(),
            env: Vec::new(),
            snapshotter: None,
            dirs: Vec::new(),
            pids: Vec::new(),
            daemon: None,
        })
    }

    /// Sets an environment variable for the daemon.
    pub(crate) fn env(&mut self, name: &'static str, value: &'static str) {
        self.env.push((name, value));
    }

    /// Lets the daemon be containerd's snapshotter too, on this socket.
    pub(crate) fn snapshotter(&mut self, socket: &Path) {
        self.snapshotter = Some(socket.to_owned());
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.draught.command(&self.root, args);
        command.envs(self.env.iter().copied());
        command
    }

    /// Runs a command against this node and gives what it printed.
    pub(crate) fn ask(&self, args: &[&str]) -> Result<String> {
        measure::output(&mut self.command(args))
    }

    /// Starts the daemon, which [`mount`](Self::mount) does too if none runs, and waits until it answers.
    pub(crate) fn start(&mut self) -> Result<()> {
        let mut command = self.command(&["daemon"]);
        if let Some(socket) = &self.snapshotter {
            command.arg("--snapshotter").arg(socket);
        }
        // Not in our process group: an interrupt is for us, and we stop it then.
        command.process_group(0);
        let log = self.root.with_extension("log");
        let mut daemon = Process::start(&mut command, &log)?;
        daemon.wait_until(START_MAX, || self.ask(&["ps"]).is_ok())?;
        self.daemon = Some(daemon);
        self.processes().map(drop)
    }

    /// Mounts an image on `dir`, which is made.
    pub(crate) fn mount(&mut self, reference: &str, dir: &Path) -> Result<()> {
        self.mount_with(reference, dir, &[])
    }

    /// Mounts an image with more options.
    pub(crate) fn mount_with(&mut self, reference: &str, dir: &Path, args: &[&str]) -> Result<()> {
        let mut command = self.mounting(reference, dir)?;
        measure::output(command.args(args)).map(drop)
    }

    /// The command that mounts an image, to be run by the caller, for example many at once.
    pub(crate) fn mounting(&mut self, reference: &str, dir: &Path) -> Result<Command> {
        fs_err::create_dir_all(dir)?;
        if !self.dirs.iter().any(|known| known == dir) {
            self.dirs.push(dir.to_owned());
        }
        let mut command = self.command(&["mount", reference]);
        command.arg(dir);
        Ok(command)
    }

    /// Unmounts what is mounted there; the daemon goes on.
    pub(crate) fn unmount(&self, dir: &Path) -> Result<()> {
        measure::output(self.command(&["umount"]).arg(dir)).map(drop)
    }

    fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask(&["ps"])?)?)
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

    /// A number that the daemon tells of one of its mounts.
    pub(crate) fn of_mount(&self, dir: &Path, key: &str) -> Result<u64> {
        let status = self.status()?;
        let mounts = status.get("mounts").and_then(Value::as_array);
        let is_there = |mount: &&Value| {
            let at = mount.get("dir").and_then(Value::as_str);
            at.is_some_and(|at| Path::new(at) == dir)
        };
        let mount = mounts.and_then(|mounts| mounts.iter().find(is_there));
        let mount = mount.with_context(|| format!("find {} in {status}", dir.display()))?;
        let number = mount.get(key).and_then(Value::as_u64);
        number.with_context(|| format!("find {key} in {mount}"))
    }

    /// A number among the daemon's metrics that has no labels.
    pub(crate) fn metric(&self, name: &str) -> Result<u64> {
        let page = self.ask(&["metrics"])?;
        metric(&page, name).with_context(|| format!("find {name} among the metrics"))
    }

    /// Waits until everything of a mount is local.
    pub(crate) fn wait_until_complete(&self, dir: &Path, patience: Duration) -> Result<()> {
        let begun = Instant::now();
        while self.of_mount(dir, "bytes_present")? != self.of_mount(dir, "bytes_total")? {
            if begun.elapsed() > patience {
                bail!("get everything: `draught ps` says some of it is missing");
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

fn metric(page: &str, name: &str) -> Option<u64> {
    page.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .and_then(|value| value.trim().parse().ok())
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        // There may be no mount, or no daemon: what has to be gone is looked at below.
        if self.pids.is_empty() {
            drop(self.processes());
        }
        for dir in self.dirs.iter().rev() {
            drop(self.unmount(dir));
        }
        let stopped = self.ask(&["daemon", "--stop"]);
        for dir in self.dirs.iter().rev() {
            if draught_testkit::mounted::below(dir).is_empty() {
                continue;
            }
            let flags = rustix::mount::UnmountFlags::DETACH;
            if let Err(error) = rustix::mount::unmount(dir, flags) {
                say(&format!("{} stays mounted: {error}", dir.display()));
            }
        }
        let Err(error) = stopped else { return };
        for pid in &self.pids {
            // Nobody else's process, even if the number is used again.
            let exe = fs_err::read_link(format!("/proc/{pid}/exe"));
            if !exe.is_ok_and(|exe| exe == self.draught.binary()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let page = "# TYPE chunks gauge\nchunks_max 7\nchunks{a=\"b\"} 8\nchunks 9\n";
        assert_eq!(metric(page, "chunks"), Some(9));
        assert_eq!(metric(page, "chunk"), None);
    }
}
