//! A containerd of one's own, on scratch directories.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};

use crate::{Process, Scratch, mounted, need};

/// Plugins that a scratch containerd does without: they want devices or services.
const DISABLED: &[&str] = &[
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
];

/// A containerd with its own sockets and directories, until it is dropped.
#[derive(Debug)]
pub struct Containerd {
    process: Process,
    socket: PathBuf,
    scratch: Scratch,
}

impl Containerd {
    /// Starts one; skips without root or the programs `containerd` and `ctr`.
    ///
    /// `snapshotters` are names and sockets of snapshotters that it asks over gRPC.
    ///
    /// # Panics
    ///
    /// If it does not start, or as [`need::skip`].
    #[must_use]
    pub fn start(snapshotters: &[(&str, &Path)]) -> Option<Self> {
        if !need::root() {
            return None;
        }
        let program = need::tool("containerd")?;
        need::tool("ctr")?;
        let scratch = Scratch::new();
        let socket = scratch.join("containerd.sock");
        let config = scratch.join("config.toml");
        fs_err::write(&config, config_text(&scratch, &socket, snapshotters)).unwrap();
        let mut command = Command::new(program);
        command.arg("--config").arg(&config);
        let mut process = Process::start(&mut command, &scratch.join("containerd.log")).unwrap();
        process
            .wait_for_socket(&socket)
            .unwrap_or_else(|error| panic!("{error}"));
        Some(Self {
            process,
            socket,
            scratch,
        })
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// `ctr`, talking to it.
    #[must_use]
    pub fn ctr(&self) -> Command {
        self.client("ctr")
    }

    /// Another client with `ctr`'s options, such as `ctr-remote`, talking to it.
    #[must_use]
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--address").arg(&self.socket);
        command
    }
}

fn config_text(scratch: &Scratch, socket: &Path, snapshotters: &[(&str, &Path)]) -> String {
    let (root, state) = (scratch.dir("root"), scratch.dir("state"));
    let mut text = format!(
        "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = {DISABLED:?}\n\
         [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = \"{}.ttrpc\"\n",
        socket.display()
    );
    for (name, socket) in snapshotters {
        write!(
            text,
            "[proxy_plugins.{name}]\ntype = \"snapshot\"\naddress = {socket:?}\n"
        )
        .unwrap();
    }
    text
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Err(error) = self.process.stop() {
            need::say(&format!("containerd is left: {error}"));
        }
        // What runs containers outlives it on purpose, and names its socket, which only ours has.
        for pid in shims(&self.socket) {
            // Gone already is as good.
            rustix::process::kill_process(pid, Signal::KILL).ok();
        }
        // Nobody but it and its containers mounts anything below its directories.
        for dir in ["state", "root"] {
            for mount in mounted::below(&self.scratch.join(dir)).iter().rev() {
                let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
                if let Err(error) = rustix::mount::unmount(&mount.dir, flags) {
                    need::say(&format!("{mount:?} is left: {error}"));
                }
            }
        }
    }
}

/// The processes whose command line names `socket`.
fn shims(socket: &Path) -> Vec<Pid> {
    let Ok(entries) = fs_err::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        // It may have ended since it was listed.
        let line = fs_err::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = line.split(|&byte| byte == 0);
        let is_shim = words
            .next()
            .is_some_and(|program| program.ends_with(b"/containerd-shim-runc-v2"));
        if is_shim && words.any(|word| word == socket.as_os_str().as_encoded_bytes()) {
            found.push(pid);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::run;

    #[test]
    fn containerd_answers() {
        let Some(containerd) = Containerd::start(&[]) else {
            return;
        };
        let answer = run(containerd.ctr().arg("version"));
        assert!(answer.contains("Server:"), "{answer}");
    }
}
