//! The machine: its kernel, and the filesystem of the state directory.

use std::path::Path;

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::check::Check;
use super::daemon;
use crate::units::Size;

/// Below this there is hardly room for one image's start.
const SPACE_BYTES_MIN: u64 = 1 << 30;
/// Below this share the store will soon be full.
const SPACE_PERCENT_MIN: u64 = 5;
/// The transport that costs nothing once data is there.
const BEST: draught_node::Transport = draught_node::Transport::Fanotify;

pub(crate) fn checks(root: &Path) -> Vec<Check> {
    let mut checks = vec![kernel(root)];
    let existing = root.ancestors().find(|path| path.is_dir());
    let dir = existing.unwrap_or(Path::new("/"));
    checks.push(overlay(dir));
    checks.push(space(dir));
    checks.push(leftovers(root));
    checks
}

fn kernel(root: &Path) -> Check {
    let what = "kernel";
    let probe = draught_node::probe(root);
    let kernel = &probe.kernel;
    match probe.transport {
        None => Check::wrong(
            what,
            probe.missing().unwrap_or_default(),
            "draught probe says what was tried",
        ),
        Some(BEST) => Check::right(what, format!("Linux {kernel}: mounts use {BEST}")),
        Some(other) => Check::hint(
            what,
            format!("Linux {kernel}: mounts use {other}, {BEST} would be faster"),
            "draught probe says what is missing for it",
        ),
    }
}

/// Whether overlayfs can have its upper directory there, as containers' root filesystems need it.
fn overlay(dir: &Path) -> Check {
    let what = "overlayfs";
    match try_overlay(dir) {
        Ok(()) => Check::right(what, format!("works in {}", dir.display())),
        Err(error) => Check::wrong(
            what,
            format!("does not work in {}: {error}", dir.display()),
            "as root: modprobe overlay; and --root on ext4, xfs (with ftype=1) or btrfs",
        ),
    }
}

fn try_overlay(dir: &Path) -> std::io::Result<()> {
    let scratch = tempfile::Builder::new()
        .prefix(".doctor-")
        .tempdir_in(dir)?;
    let at = |name: &str| {
        let path = scratch.path().join(name);
        fs_err::create_dir(&path).map(|()| path)
    };
    let (lower, upper, work) = (at("lower")?, at("upper")?, at("work")?);
    // Never attached: it is gone when its descriptor is.
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, path) in [
        ("lowerdir", &lower),
        ("upperdir", &upper),
        ("workdir", &work),
    ] {
        rustix::mount::fsconfig_set_string(&fs, name, path)?;
    }
    rustix::mount::fsconfig_create(&fs)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let mount = rustix::mount::fsmount(&fs, flags, MountAttrFlags::empty())?;
    drop(mount);
    Ok(())
}

fn space(dir: &Path) -> Check {
    let what = "space";
    let stat = match rustix::fs::statvfs(dir) {
        Ok(stat) => stat,
        Err(error) => return Check::wrong(what, error.to_string(), "choose another --root"),
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let all = stat.f_blocks.saturating_mul(stat.f_frsize);
    let found = format!(
        "{}: {} of {} are free",
        dir.display(),
        Size(free),
        Size(all)
    );
    let fix = "make room, or bound the store: draught daemon --cache-size-max; draught gc";
    if free < SPACE_BYTES_MIN {
        Check::wrong(what, found, fix)
    } else if free < all / 100 * SPACE_PERCENT_MIN {
        Check::hint(what, found, fix)
    } else {
        Check::right(what, found)
    }
}

/// Mounts that nobody serves.
fn leftovers(root: &Path) -> Check {
    let what = "mounts";
    if let Ok(status) = daemon::status(root) {
        let count = status.mounts.len();
        return Check::right(what, format!("{count} are served"));
    }
    let text = fs_err::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let left = left_over(&text, root);
    match left.first() {
        None => Check::right(what, "none is left over"),
        Some(first) => Check::wrong(
            what,
            format!(
                "{} are left that nobody serves, such as {first}",
                left.len()
            ),
            "start the daemon: it takes them away or goes on with them",
        ),
    }
}

/// Mounts whose source is below the state directory.
fn left_over(mountinfo: &str, root: &Path) -> Vec<String> {
    let of_line = |line: &str| {
        let (begin, end) = line.split_once(" - ")?;
        let dir = begin.split(' ').nth(4)?;
        let mut end = end.split(' ');
        let (kind, source) = (end.next()?, end.next()?);
        let is_ours = ["erofs", "fuse.draught"].contains(&kind);
        (is_ours && Path::new(source).starts_with(root)).then(|| dir.to_owned())
    };
    mountinfo.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_this_root_are_told_from_others() {
        let line = |dir: &str, kind: &str, source: &str| {
            format!("36 35 0:40 / {dir} ro,relatime shared:1 - {kind} {source} ro\n")
        };
        let text = [
            line(
                "/mnt/a",
                "erofs",
                "/var/lib/draught/store/images/x/metadata",
            ),
            line(
                "/mnt/b",
                "fuse.draught",
                "/var/lib/draught/store/images/y/metadata",
            ),
            line("/mnt/c", "erofs", "/var/lib/draught-other/x"),
            line("/mnt/d", "ext4", "/var/lib/draught/disk"),
        ];
        let left = left_over(&text.concat(), Path::new("/var/lib/draught"));
        assert_eq!(left, ["/mnt/a", "/mnt/b"]);
    }
}
