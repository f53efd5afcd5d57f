//! What runs containers outlives containerd: finding it.

use std::path::{Path, PathBuf};

use rustix::process::Pid;

/// A process as `/proc` shows it.
struct Seen {
    pid: Pid,
    parent: Option<Pid>,
    command_line: Vec<u8>,
}

/// The processes of containerd's helpers that name `socket`, and of what they run.
pub(super) fn shims_with_containers(socket: &Path) -> Vec<Pid> {
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
