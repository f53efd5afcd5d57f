//! The daemon, and ending what it started.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::UnmountFlags;
use rustix::process::Signal;

use super::config::{Config, Proxy};
use super::shims::shims_with_containers;
use crate::background::Background;
use crate::cri::Cri;
use crate::{Process, Scratch, mounted, need};

/// A containerd with its own sockets and directories, until it is dropped.
#[derive(Debug)]
pub struct Containerd {
    program: PathBuf,
    /// Every process that it was so far, the last of them the one that runs.
    processes: Vec<Process>,
    socket: PathBuf,
    runs_pods: bool,
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
        let snapshotters = snapshotters.iter();
        Self::start_with(&Config {
            snapshotters: snapshotters
                .map(|(name, socket)| Proxy::new(name, socket))
                .collect(),
            cri: None,
        })
    }

    /// Starts one that is to be so; skips as [`start`](Self::start), and for pods without `runc`.
    ///
    /// # Panics
    ///
    /// If it does not start, or as [`need::skip`].
    #[must_use]
    pub fn start_with(config: &Config) -> Option<Self> {
        if !need::root() {
            return None;
        }
        let program = need::tool("containerd")?;
        need::tool("ctr")?;
        if config.cri.is_some() {
            need::tool("runc")?;
        }
        let scratch = Scratch::new();
        let socket = scratch.join("containerd.sock");
        let text = config.text(&scratch, &socket);
        fs_err::write(scratch.join("config.toml"), text).unwrap();
        let mut containerd = Self {
            program,
            processes: Vec::new(),
            socket,
            runs_pods: config.cri.is_some(),
            scratch,
        };
        containerd.start_again();
        Some(containerd)
    }

    /// Starts it on its directories, after [`stop`](Self::stop) or [`kill`](Self::kill). Containers that
    /// still run are its own again.
    ///
    /// # Panics
    ///
    /// If it does not start, or runs.
    pub fn start_again(&mut self) {
        assert!(!self.runs(), "containerd runs");
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(self.scratch.join("config.toml"));
        let log = format!("containerd-{}.log", self.processes.len());
        let mut process = Process::start(&mut command, &self.scratch.join(log)).unwrap();
        process
            .wait_for_socket(&self.socket)
            .unwrap_or_else(|error| panic!("{error}"));
        if self.runs_pods {
            // It listens before it has looked after the pods that there are.
            let knows_them = || Cri::connect(&self.socket).is_ok_and(|cri| cri.pods().is_ok());
            process
                .wait_until(crate::net::START_MAX, knows_them)
                .unwrap_or_else(|error| panic!("{error}"));
        }
        self.processes.push(process);
    }

    /// Asks it to end, and waits. Containers go on.
    ///
    /// # Panics
    ///
    /// If it can't be waited for.
    pub fn stop(&mut self) {
        self.processes.last_mut().unwrap().stop().unwrap();
    }

    /// Kills it, and waits. Containers go on.
    ///
    /// # Panics
    ///
    /// If it has ended already.
    pub fn kill(&mut self) {
        let process = self.processes.last_mut().unwrap();
        process.signal(Signal::KILL).unwrap();
        let ended = process.wait_until(crate::net::START_MAX, || false);
        assert!(ended.is_err(), "it ends, which is told as an error");
    }

    fn runs(&mut self) -> bool {
        let last = self.processes.last_mut();
        last.is_some_and(|process| matches!(process.ended(), Ok(None)))
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The directory of all that is its own.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    #[cfg(test)]
    pub(super) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The process, which is another after it was started again.
    ///
    /// # Panics
    ///
    /// Never: it was started.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.processes.last().unwrap().id()
    }

    /// What it has logged, all its processes one after the other.
    #[must_use]
    pub fn log(&self) -> String {
        self.processes.iter().map(Process::log).collect()
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

impl Containerd {
    /// Ends its containers as it would itself, so that no control group of theirs is left.
    fn delete_tasks(&self) {
        let lines = |arguments: &[&str]| {
            let output = self.ctr().args(arguments).output().ok();
            let text = output.map(|output| output.stdout).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        for namespace in lines(&["namespaces", "list", "--quiet"]) {
            for task in lines(&["--namespace", &namespace, "tasks", "list", "--quiet"]) {
                lines(&[
                    "--namespace",
                    &namespace,
                    "tasks",
                    "delete",
                    "--force",
                    &task,
                ]);
            }
        }
    }
}

impl Containerd {
    /// A lease in a namespace, which keeps from collection what is made under it. It goes with its containerd.
    ///
    /// # Panics
    ///
    /// If there is no answer.
    #[must_use]
    pub fn lease(&self, namespace: &str) -> String {
        use draught_containerd::leases::CreateRequest;
        use draught_containerd::leases::leases_client::LeasesClient;
        let (socket, namespace) = (self.socket.clone(), namespace.to_owned());
        let background = Background::start("lease");
        let answer = background.wait(async move {
            let channel = draught_containerd::connect(&socket).await.unwrap();
            let request = draught_containerd::in_namespace(&namespace, CreateRequest::default());
            LeasesClient::new(channel).create(request).await
        });
        answer.unwrap().into_inner().lease.unwrap().id
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if self.processes.is_empty() {
            return;
        }
        if !self.runs() && !shims_with_containers(&self.socket).is_empty() {
            // Only it can end its containers as it would itself.
            self.start_again();
        }
        self.delete_tasks();
        if let Some(Err(error)) = self.processes.last_mut().map(Process::stop) {
            need::say(&format!("containerd is left: {error}"));
        }
        // What runs containers outlives it on purpose, and names its socket, which only ours has.
        // There is something left only if it did not answer any more.
        for pid in shims_with_containers(&self.socket) {
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
