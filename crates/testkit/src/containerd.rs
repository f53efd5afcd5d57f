//! A containerd of one's own, on scratch directories.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};

use crate::background::Background;
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
        self.delete_tasks();
        if let Err(error) = self.process.stop() {
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

/// A process as `/proc` shows it.
struct Seen {
    pid: Pid,
    parent: Option<Pid>,
    command_line: Vec<u8>,
}

/// The processes of containerd's helpers that name `socket`, and of what they run.
fn shims_with_containers(socket: &Path) -> Vec<Pid> {
    let seen = processes();
    let is_shim = |process: &&Seen| {
        let mut words = process.command_line.split(|&byte| byte == 0);
        let program = words.next().unwrap_or_default();
        program.ends_with(b"/containerd-shim-runc-v2")
            && words.any(|word| word == socket.as_os_str().as_encoded_bytes())
    };
    let mut found: Vec<Pid> = seen
        .iter()
        .filter(is_shim)
        .map(|process| process.pid)
        .collect();
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        let children = seen.iter().filter(|process| process.parent == Some(parent));
        let children: Vec<Pid> = children.map(|process| process.pid).collect();
        found.extend(children);
        next += 1;
    }
    found
}

/// All processes; those that ended since they were listed are left out.
fn processes() -> Vec<Seen> {
    let Ok(entries) = fs_err::read_dir("/proc") else {
        return Vec::new();
    };
    let see = |dir: PathBuf| {
        let pid = Pid::from_raw(dir.file_name()?.to_str()?.parse().ok()?)?;
        let status = fs_err::read_to_string(dir.join("status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        Some(Seen {
            pid,
            parent: Pid::from_raw(parent.trim().parse().ok()?),
            command_line: fs_err::read(dir.join("cmdline")).ok()?,
        })
    };
    entries
        .flatten()
        .filter_map(|entry| see(entry.path()))
        .collect()
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

    /// A root filesystem that holds `sleep` and what it needs.
    fn rootfs_with_sleep(scratch: &Scratch) -> PathBuf {
        let root = scratch.dir("rootfs");
        let sleep = need::find("sleep").unwrap();
        let libraries = run(Command::new("ldd").arg(&sleep));
        let libraries = libraries
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        for file in libraries.map(Path::new).chain([sleep.as_path()]) {
            let to = root.join(file.strip_prefix("/").unwrap());
            fs_err::create_dir_all(to.parent().unwrap()).unwrap();
            fs_err::copy(file, to).unwrap();
        }
        root
    }

    #[test]
    fn containers_end_with_it() {
        let Some(containerd) = Containerd::start(&[]) else {
            return;
        };
        if need::tool("runc").is_none() {
            return;
        }
        let root = rootfs_with_sleep(&containerd.scratch);
        let mut ctr = containerd.ctr();
        ctr.args(["run", "--detach", "--rootfs"]).arg(root);
        let id = format!("sleeper-{}", std::process::id());
        let sleep = need::find("sleep").unwrap();
        run(ctr.arg(&id).arg(sleep).arg("3600"));
        let running = shims_with_containers(&containerd.socket);
        assert!(
            running.len() >= 2,
            "the shim and its container: {running:?}"
        );
        let dir = containerd.scratch.path().to_owned();
        drop(containerd);
        for pid in running {
            let status = fs_err::read_to_string(format!("/proc/{}/status", pid.as_raw_pid()));
            // Whoever inherits it may not have reaped it yet.
            let gone = status.map_or(true, |status| status.contains("State:\tZ"));
            assert!(gone, "{pid:?} still runs");
        }
        assert_eq!(mounted::below(&dir), []);
        for groups in ["/sys/fs/cgroup", "/sys/fs/cgroup/pids"] {
            assert!(!Path::new(groups).join("default").join(&id).exists());
        }
        assert!(!dir.exists());
    }
}
