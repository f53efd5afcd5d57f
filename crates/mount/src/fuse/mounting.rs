//! Mounting FUSE filesystems: by ourselves where we may, else through `fusermount3`.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::helper;
use crate::erofs::explanation;

const DEVICE: &str = "/dev/fuse";

/// Why a FUSE filesystem can't be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FuseError {
    /// There is no FUSE here, or not for us.
    #[error(
        "cannot open /dev/fuse (run `modprobe fuse`; a container needs the device passed to it)"
    )]
    NoDevice(#[source] io::Error),
    /// The kernel refused a step.
    #[error("the kernel refused {step}{explanation}")]
    Refused {
        /// Which step.
        step: &'static str,
        /// What the kernel said about it, if anything; begins with ": ".
        explanation: String,
        /// The errno.
        source: io::Error,
    },
    /// Who isn't root needs a program that could not be started.
    #[error(
        "cannot run fusermount3, which mounts for ordinary users: install the package fuse3, or run as root"
    )]
    NoHelper(#[source] io::Error),
    /// That program refused.
    #[error("fusermount3 refused {path:?} ({status}): {said}")]
    HelperRefused {
        /// The directory.
        path: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// Its words.
        said: String,
    },
    /// That program said that it mounted, and gave us nothing to serve it with.
    #[error("fusermount3 mounted {path:?} and passed no descriptor on")]
    NoDescriptor {
        /// The directory.
        path: PathBuf,
        /// What receiving it said.
        source: io::Error,
    },
}

/// How to mount. Always read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FuseOptions {
    /// What the mount table names as the source.
    pub source: String,
    /// What the mount table adds to the type: `fuse.<subtype>`.
    pub subtype: String,
    /// Whether other users than ours may look into it. Ordinary users need `user_allow_other` in
    /// `/etc/fuse.conf`.
    pub allow_other: bool,
    /// Whether the kernel checks permissions by owner and mode of files.
    pub default_permissions: bool,
    /// Bytes of one read at most; else as many as the kernel likes.
    pub read_bytes_max: Option<u32>,
    /// Whether set-user-id bits, device nodes and programs in it shall have no effect. An ordinary user's mount never honours
    /// the first two.
    pub is_data_only: bool,
}

impl Default for FuseOptions {
    fn default() -> Self {
        Self {
            source: "draught".to_owned(),
            subtype: "draught".to_owned(),
            allow_other: rustix::process::geteuid().is_root(),
            default_permissions: true,
            read_bytes_max: None,
            is_data_only: false,
        }
    }
}

/// A mounted filesystem that is not attached to a directory; gone when dropped.
#[derive(Debug)]
pub struct FuseMount {
    mount: OwnedFd,
}

impl FuseMount {
    /// Mounts for root. The descriptor is for [`super::Session::start`]; until then, whoever looks into the mount waits.
    ///
    /// # Errors
    /// [`FuseError::NoDevice`], [`FuseError::Refused`].
    pub fn detached(options: &FuseOptions) -> Result<(Self, OwnedFd), FuseError> {
        let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(refused("a FUSE context (is FUSE in this kernel?)", None))?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let device = rustix::fs::open(DEVICE, flags, Mode::empty())
            .map_err(|errno| FuseError::NoDevice(errno.into()))?;
        configure(&context, &device, options)?;
        fsconfig_create(context.as_fd())
            .map_err(|errno| refused("to mount", Some(&context))(errno))?;
        let mut attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
        if options.is_data_only {
            attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        }
        let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|errno| refused("a mount", Some(&context))(errno))?;
        Ok((Self { mount }, device))
    }

    /// The root directory of the mount, to look into it before anybody else can.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// Attaches it to directory `target`; from then on it stays until it is unmounted.
    ///
    /// # Errors
    /// [`FuseError::Refused`].
    pub fn attach(self, target: &Path) -> Result<(), FuseError> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(self.mount.as_fd(), "", CWD, target, flags)
            .map_err(refused("to attach the mount to its directory", None))
    }
}

fn configure(context: &OwnedFd, device: &OwnedFd, options: &FuseOptions) -> Result<(), FuseError> {
    let set = |key: &str, value: &str| {
        fsconfig_set_string(context.as_fd(), key, value)
            .map_err(|errno| refused("an option", Some(context))(errno))
    };
    let flag = |key: &str| {
        fsconfig_set_flag(context.as_fd(), key)
            .map_err(|errno| refused("an option", Some(context))(errno))
    };
    set("source", &options.source)?;
    set("subtype", &options.subtype)?;
    set("fd", &device.as_raw_fd().to_string())?;
    // The root of what we serve is a directory; its permissions are asked for.
    set("rootmode", "40000")?;
    set("user_id", &rustix::process::geteuid().as_raw().to_string())?;
    set("group_id", &rustix::process::getegid().as_raw().to_string())?;
    if let Some(bytes) = options.read_bytes_max {
        set("max_read", &bytes.to_string())?;
    }
    if options.allow_other {
        flag("allow_other")?;
    }
    if options.default_permissions {
        flag("default_permissions")?;
    }
    flag("ro")
}

fn refused(
    step: &'static str,
    context: Option<&OwnedFd>,
) -> impl FnOnce(Errno) -> FuseError + use<> {
    let explanation = context.map(explanation).unwrap_or_default();
    move |errno| FuseError::Refused {
        step,
        explanation,
        source: errno.into(),
    }
}

/// Mounts on directory `target`: by ourselves if we may, else through `fusermount3`. Whoever looks into the directory
/// waits until the descriptor is served by a [`super::Session`].
///
/// # Errors
/// [`FuseError`].
pub fn mount(target: &Path, options: &FuseOptions) -> Result<OwnedFd, FuseError> {
    match FuseMount::detached(options) {
        Ok((mount, device)) => {
            mount.attach(target)?;
            Ok(device)
        }
        Err(FuseError::Refused { source, .. })
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            helper::mount(target, options)
        }
        Err(error) => Err(error),
    }
}

/// Unmounts what is mounted on `target`, without following a symbolic link: by ourselves if we may, else through
/// `fusermount3`. If `even_in_use`, it is taken out of the directory tree at once and ends with its last user.
///
/// # Errors
/// [`FuseError::Refused`], with `EBUSY` while somebody uses it; [`FuseError::NoHelper`] and
/// [`FuseError::HelperRefused`] for ordinary users.
pub fn unmount(target: &Path, even_in_use: bool) -> Result<(), FuseError> {
    let mut flags = UnmountFlags::NOFOLLOW;
    if even_in_use {
        flags |= UnmountFlags::DETACH;
    }
    match rustix::mount::unmount(target, flags) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => helper::unmount(target, even_in_use),
        Err(errno) => Err(refused("to unmount", None)(errno)),
    }
}

/// Sets how far the kernel reads ahead in the FUSE filesystem that `file` is in, and so how large reads get:
/// 128 KiB unless somebody does. To be called once a session was started; for root.
///
/// # Errors
/// What writing to sysfs says.
pub fn set_readahead(file: BorrowedFd<'_>, kib: u32) -> io::Result<()> {
    // Without asking the server, which may be ourselves.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(file, "", flags, StatxFlags::TYPE)?;
    let bdi = format!("{}:{}", stat.stx_dev_major, stat.stx_dev_minor);
    let path = Path::new("/sys/class/bdi").join(bdi).join("read_ahead_kb");
    fs_err::write(path, kib.to_string())
}
