//! Mounts that last as long as a guard lives.

use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, StatxFlags};
use rustix::mount::UnmountFlags;

use crate::{need, process};

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mount {
    /// The kernel's number for the mount, unique while it lasts and used again afterwards.
    pub id: u64,
    /// Where it is mounted.
    pub dir: PathBuf,
    /// The filesystem's type.
    pub fs_type: String,
}

/// Everything that is mounted in this mount namespace, in the order of mounting.
///
/// # Panics
///
/// If `/proc` is not there.
#[must_use]
pub fn all() -> Vec<Mount> {
    let table = fs_err::read("/proc/self/mountinfo").unwrap();
    table
        .split(|&byte| byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// Everything that is mounted at `dir` or below it.
#[must_use]
pub fn below(dir: &Path) -> Vec<Mount> {
    let mut mounts = all();
    mounts.retain(|mount| mount.dir.starts_with(dir));
    mounts
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let dir = unescape(fields.nth(3)?);
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = String::from_utf8_lossy(rest.next()?).into_owned();
    Some(Mount { id, dir, fs_type })
}

/// The mount table writes blanks and backslashes as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = octal {
            bytes.push(byte);
            rest = tail.get(3..).unwrap_or_default();
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// Unmounts, when dropped, the one mount that it was given.
///
/// The mount is known by the kernel's numbers for it: what somebody else mounts at the same place
/// stays.
#[derive(Debug)]
pub struct MountGuard {
    mount: Option<Mount>,
    unique_id: Option<u64>,
}

impl MountGuard {
    /// Takes over the mount that was just made at `dir`.
    ///
    /// # Panics
    ///
    /// If nothing is mounted there.
    #[must_use]
    pub fn adopt(dir: &Path) -> Self {
        let dir = fs_err::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        let mount = topmost(&dir);
        assert!(mount.is_some(), "nothing is mounted at {}", dir.display());
        let unique_id = unique_id(&dir);
        Self { mount, unique_id }
    }

    /// Runs `command`, which mounts something at `dir`, and takes over that mount.
    ///
    /// # Panics
    ///
    /// If the command fails or mounts nothing there.
    #[must_use]
    #[track_caller]
    pub fn run(command: &mut Command, dir: &Path) -> Self {
        process::run(command);
        Self::adopt(dir)
    }

    /// The mount, with its place and type.
    ///
    /// # Panics
    ///
    /// Never: it is there until the guard is dropped.
    #[must_use]
    pub fn mount(&self) -> &Mount {
        self.mount.as_ref().unwrap()
    }

    /// Leaves the mount to somebody else, who has unmounted it or will.
    pub fn release(mut self) {
        self.mount = None;
    }
}

/// `STATX_MNT_ID_UNIQUE`, which rustix does not name: asks for a number that, unlike that of the
/// mount table, is never given to another mount.
const MNT_ID_UNIQUE: u32 = 0x4000;

/// That number for the topmost mount at `dir`; nothing before Linux 6.8, or if its server is dead.
fn unique_id(dir: &Path) -> Option<u64> {
    let wanted = StatxFlags::from_bits_retain(MNT_ID_UNIQUE);
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let stat = rustix::fs::statx(rustix::fs::CWD, dir, flags, wanted).ok()?;
    (stat.stx_mask & MNT_ID_UNIQUE != 0).then_some(stat.stx_mnt_id)
}

fn topmost(dir: &Path) -> Option<Mount> {
    all().into_iter().rev().find(|mount| mount.dir == dir)
}

impl Drop for MountGuard {
    fn drop(&mut self) {
        let Some(mount) = self.mount.take() else {
            return;
        };
        match topmost(&mount.dir) {
            Some(top) if top.id == mount.id => {
                // The number in the table may be that of a later mount by now.
                let now = unique_id(&mount.dir);
                if now.is_some() && self.unique_id.is_some() && now != self.unique_id {
                    return;
                }
            }
            // Gone already, or hidden under a mount that is not ours.
            Some(_) if all().iter().any(|other| other.id == mount.id) => {
                need::say(&format!("{mount:?} is left: another mount covers it"));
                return;
            }
            _ => return,
        }
        let flags = UnmountFlags::NOFOLLOW;
        let result = rustix::mount::unmount(&mount.dir, flags)
            // Somebody still has a file open there: let the last close end it.
            .or_else(|_| rustix::mount::unmount(&mount.dir, flags | UnmountFlags::DETACH));
        if let Err(error) = result {
            need::say(&format!("{mount:?} is left: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scratch;

    fn mount_tmpfs(dir: &Path) -> MountGuard {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "draught-test"]).arg(dir);
        MountGuard::run(&mut command, dir)
    }

    #[test]
    fn a_line_of_the_mount_table_is_understood() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 - ext3 /dev/root rw";
        let mount = parse_line(line).unwrap();
        assert_eq!(mount.id, 36);
        assert_eq!(mount.dir, Path::new("/mnt 2"));
        assert_eq!(mount.fs_type, "ext3");
        assert_eq!(parse_line(b""), None);
    }

    #[test]
    fn a_mount_goes_with_its_guard() {
        if !need::root() {
            return;
        }
        let scratch = Scratch::new();
        let dir = scratch.dir("a place");
        let guard = mount_tmpfs(&dir);
        assert_eq!(guard.mount().fs_type, "tmpfs");
        assert_eq!(below(&dir).len(), 1);
        drop(guard);
        assert_eq!(below(&dir), []);
    }

    #[test]
    fn what_somebody_else_mounted_at_the_same_place_stays() {
        if !need::root() {
            return;
        }
        let scratch = Scratch::new();
        let dir = scratch.dir("place");
        // Often enough that the second gets the number that the first had.
        for _ in 0..20 {
            let first = mount_tmpfs(&dir);
            rustix::mount::unmount(&dir, UnmountFlags::empty()).unwrap();
            let second = mount_tmpfs(&dir);
            drop(first);
            assert_eq!(below(&dir), [second.mount().clone()]);
        }
    }
}
