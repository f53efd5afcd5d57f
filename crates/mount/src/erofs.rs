//! Mounting EROFS images that lie in plain files.
//!
//! `mount(8)` and `mount(2)` are never used: the former silently makes a loop device, whose reads
//! bypass pre-content events and see holes as zeros; the latter has an option string of 4 KiB, too
//! short for many devices. Origin: `fsopen(2)`, `fsconfig(2)`, Linux's `fs/erofs/super.c`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

/// Lines of the kernel's explanation that an error carries.
const EXPLANATION_LINES_MAX: usize = 16;

/// Why an image can't be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The kernel refused a step.
    #[error("the kernel refused {step} for {path:?}{explanation}")]
    Refused {
        /// Which step.
        step: &'static str,
        /// The image, device or directory.
        path: PathBuf,
        /// What the kernel said about it, if anything; begins with ": ".
        explanation: String,
        /// The errno.
        source: io::Error,
    },
    /// The mount came out on top of a block device: its reads would bypass us.
    #[error(
        "mounting {path:?} went through block device {major}:{minor}, whose holes would read as zeros"
    )]
    BlockDevice {
        /// The image.
        path: PathBuf,
        /// Major number of the device.
        major: u32,
        /// Minor number of the device.
        minor: u32,
    },
}

/// A mounted image that is not attached to a directory; gone when dropped.
#[derive(Debug)]
pub struct Detached {
    mount: OwnedFd,
    image: PathBuf,
    bdis: Vec<OsString>,
}

fn refused(
    step: &'static str,
    path: &Path,
    context: Option<&OwnedFd>,
) -> impl Fn(rustix::io::Errno) -> MountError {
    let explanation = context.map(explanation).unwrap_or_default();
    let path = path.to_path_buf();
    move |errno| MountError::Refused {
        step,
        path: path.clone(),
        explanation: explanation.clone(),
        source: errno.into(),
    }
}

/// What the kernel has to say about the last failure, one message a read.
pub(crate) fn explanation(context: &OwnedFd) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    for _ in 0..EXPLANATION_LINES_MAX {
        let Ok(len @ 1..) = rustix::io::read(context, &mut buffer) else {
            break;
        };
        let line = String::from_utf8_lossy(buffer.get(..len).unwrap_or_default()).into_owned();
        text.push_str(": ");
        text.push_str(line.trim_start_matches(['e', 'w', 'i']).trim());
    }
    text
}

impl Detached {
    /// Mounts the image in file `image`, read-only, with `devices` in the order of its device table.
    ///
    /// # Errors
    /// [`MountError::Refused`] with the kernel's words, [`MountError::BlockDevice`].
    pub fn mount(image: &Path, devices: &[PathBuf]) -> Result<Self, MountError> {
        let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(refused(
            "an EROFS context (is EROFS in this kernel?)",
            image,
            None,
        ))?;
        fsconfig_set_string(context.as_fd(), "source", image)
            .map_err(|errno| refused("the image", image, Some(&context))(errno))?;
        for device in devices {
            fsconfig_set_string(context.as_fd(), "device", device)
                .map_err(|errno| refused("a device", device, Some(&context))(errno))?;
        }
        fsconfig_set_flag(context.as_fd(), "ro")
            .map_err(|errno| refused("a read-only mount", image, Some(&context))(errno))?;
        let before = bdis();
        fsconfig_create(context.as_fd())
            .map_err(|errno| refused("to mount", image, Some(&context))(errno))?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
        let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|errno| refused("a mount", image, Some(&context))(errno))?;
        let device = rustix::fs::fstat(&mount)
            .map_err(refused("to stat", image, None))?
            .st_dev;
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        if major != 0 {
            return Err(MountError::BlockDevice {
                path: image.to_path_buf(),
                major,
                minor,
            });
        }
        let bdis = bdis().difference(&before).cloned().collect();
        Ok(Self {
            mount,
            image: image.to_path_buf(),
            bdis,
        })
    }

    /// How far the kernel reads ahead in it.
    #[must_use]
    pub fn readahead(&self) -> Readahead {
        Readahead {
            bdis: self.bdis.clone(),
        }
    }

    /// The root directory of the mount, to look into it before anybody else can.
    #[must_use]
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// Attaches it to directory `target`; from then on it stays when this process goes.
    ///
    /// # Errors
    /// [`MountError::Refused`].
    pub fn attach(self, target: &Path) -> Result<(), MountError> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(self.mount.as_fd(), "", CWD, target, flags).map_err(|errno| {
            MountError::Refused {
                step: "to attach the mount to a directory",
                path: target.to_path_buf(),
                explanation: format!(": image {}", self.image.display()),
                source: errno.into(),
            }
        })
    }
}

/// How far the kernel reads ahead in a filesystem.
#[derive(Debug, Clone, Default)]
pub struct Readahead {
    bdis: Vec<OsString>,
}

impl Readahead {
    /// Sets it: the largest read that a sequential reader makes. Does nothing when the filesystem is gone:
    /// its name is never given out again before the next boot.
    ///
    /// # Errors
    /// What writing to sysfs says.
    pub fn set(&self, kib: u32) -> io::Result<()> {
        for bdi in &self.bdis {
            let file = Path::new(BDIS).join(bdi).join("read_ahead_kb");
            match fs_err::write(file, kib.to_string()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Where sysfs has the readahead of filesystems.
const BDIS: &str = "/sys/class/bdi";

/// The names under which sysfs has the EROFS filesystems that there are. They carry a number that counts
/// filesystems and is told nowhere else, so ours is the one that was not there before.
fn bdis() -> BTreeSet<OsString> {
    let Ok(entries) = fs_err::read_dir(BDIS) else {
        return BTreeSet::new();
    };
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    names
        .filter(|name| name.as_encoded_bytes().starts_with(b"erofs-"))
        .collect()
}

/// Unmounts what is mounted on `target`, without following a symbolic link.
///
/// # Errors
/// [`MountError::Refused`] with `EBUSY` while somebody uses it, `EINVAL` if nothing is mounted there.
pub fn unmount(target: &Path) -> Result<(), MountError> {
    rustix::mount::unmount(target, UnmountFlags::NOFOLLOW).map_err(refused(
        "to unmount",
        target,
        None,
    ))
}

/// Takes what is mounted on `target` out of the directory tree even if somebody uses it.
///
/// # Errors
/// [`MountError::Refused`], with `EINVAL` if nothing is mounted there.
pub fn detach(target: &Path) -> Result<(), MountError> {
    rustix::mount::unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH).map_err(refused(
        "to detach",
        target,
        None,
    ))
}

/// Whether the image in file `image` is mounted, or was and is still in use: whether somebody has it open.
/// Nobody but the kernel is expected to.
///
/// # Errors
/// What opening it says.
pub fn is_in_use(image: &Path) -> io::Result<bool> {
    let image = fs_err::File::open(image)?;
    Ok(!draught_sys::lease::is_sole_opener(image.file().as_fd())?)
}
