//! EROFS images mounted by the kernel, from files, without a loop device.

use std::path::{Path, PathBuf};

use rustix::fd::AsFd as _;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::MountGuard;

/// Mounts the image in file `image` at the directory `dir`, with `devices` in the order of its
/// device table. Fails with what the kernel said.
///
/// # Errors
///
/// If the kernel refuses.
pub fn mount(image: &Path, devices: &[PathBuf], dir: &Path) -> anyhow::Result<MountGuard> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let configure = || -> rustix::io::Result<()> {
        fsconfig_set_string(context.as_fd(), "source", image)?;
        for device in devices {
            fsconfig_set_string(context.as_fd(), "device", device)?;
        }
        fsconfig_set_flag(context.as_fd(), "ro")?;
        fsconfig_create(context.as_fd())
    };
    configure().map_err(|errno| {
        let mut words = vec![0; 4096];
        let mut log = String::new();
        while let Ok(len) = rustix::io::read(&context, &mut words) {
            log += &String::from_utf8_lossy(words.get(..len).unwrap_or_default());
        }
        anyhow::Error::from(errno).context(log)
    })?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mount.as_fd(), "", rustix::fs::CWD, dir, flags)?;
    Ok(MountGuard::adopt(dir))
}
