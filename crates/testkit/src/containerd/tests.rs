//! A containerd by itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::shims::shims_with_containers;
use super::*;
use crate::process::run;
use crate::{Scratch, mounted, need};

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
    let root = rootfs_with_sleep(containerd.scratch());
    let mut ctr = containerd.ctr();
    ctr.args(["run", "--detach", "--rootfs"]).arg(root);
    let id = format!("sleeper-{}", std::process::id());
    let sleep = need::find("sleep").unwrap();
    run(ctr.arg(&id).arg(sleep).arg("3600"));
    let running = shims_with_containers(containerd.socket());
    assert!(
        running.len() >= 2,
        "the shim and its container: {running:?}"
    );
    let dir = containerd.scratch().path().to_owned();
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
