//! What this kernel and this directory can do.

use std::io;
use std::path::Path;

use draught_sys::fanotify::Group;

/// Whether something can be done here, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ability {
    /// Whether it can be used.
    pub usable: bool,
    /// Why, for people.
    pub why: String,
}

impl Ability {
    /// It works.
    #[must_use]
    pub fn yes(why: impl Into<String>) -> Self {
        Self {
            usable: true,
            why: why.into(),
        }
    }

    /// It does not.
    #[must_use]
    pub fn no(why: impl Into<String>) -> Self {
        Self {
            usable: false,
            why: why.into(),
        }
    }
}

/// Whether files in `directory` can raise pre-content events, found out by marking one.
#[must_use]
pub fn pre_content_events(directory: &Path) -> Ability {
    let group = match Group::new() {
        Ok(group) => group,
        Err(error) => {
            return Ability::no(match error.raw_os_error() {
                Some(1) => "not allowed: needs CAP_SYS_ADMIN (run as root)".to_owned(),
                Some(22) => {
                    "this kernel has no pre-content events: needs Linux 6.15 or later with \
                             CONFIG_FANOTIFY_ACCESS_PERMISSIONS"
                        .to_owned()
                }
                Some(24) => "this user has as many fanotify groups as \
                             /proc/sys/fs/fanotify/max_user_groups allows"
                    .to_owned(),
                _ => format!("fanotify_init failed: {error}"),
            });
        }
    };
    match mark_scratch(&group, directory) {
        Ok(()) => Ability::yes("pre-content events work on the state directory's filesystem"),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ability::no(format!(
            "the filesystem of {} raises no pre-content events: use ext4, xfs or btrfs",
            directory.display()
        )),
        Err(error) => Ability::no(format!("could not mark a file: {error}")),
    }
}

fn mark_scratch(group: &Group, directory: &Path) -> io::Result<()> {
    let path = directory.join(format!(".probe-{}", std::process::id()));
    let file = fs_err::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)?;
    let removed = fs_err::remove_file(&path);
    group.mark(std::os::fd::AsFd::as_fd(file.file()))?;
    removed
}
