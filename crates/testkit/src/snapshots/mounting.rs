//! Mounting what a snapshotter answers, as those who run containers do.

use std::ffi::CString;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use draught_containerd::types::Mount;
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_bind,
    mount_bind_recursive, mount_remount, move_mount,
};

use crate::MountGuard;

/// Bytes of options that mount(2) takes: a page, with a zero at its end.
const OPTIONS_BYTES_MAX: usize = 4095;

/// Mounts in the order of mounting; they end with this, in the other order.
#[derive(Debug)]
pub struct Mounted {
    dir: PathBuf,
    guards: Vec<MountGuard>,
}

impl Mounted {
    /// Where they are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        while let Some(guard) = self.guards.pop() {
            drop(guard);
        }
    }
}

/// Mounts all of them, one over the other, at the directory `dir`.
///
/// # Errors
///
/// If there are none, or the kernel refuses one.
pub fn mount_all(mounts: &[Mount], dir: &Path) -> Result<Mounted> {
    ensure!(!mounts.is_empty(), "there is nothing to mount");
    let mut mounted = Mounted {
        dir: dir.to_owned(),
        guards: Vec::new(),
    };
    for one in mounts {
        let at = match one.target.trim_start_matches('/') {
            "" => dir.to_owned(),
            below => dir.join(below),
        };
        mount_one(one, &at).with_context(|| format!("failed to mount {one:?}"))?;
        mounted.guards.push(MountGuard::adopt(&at));
    }
    Ok(mounted)
}

fn mount_one(one: &Mount, at: &Path) -> Result<()> {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    let (mut recursive, mut bind) = (false, one.r#type == "bind");
    for option in &one.options {
        match option.as_str() {
            "ro" => flags |= MountFlags::RDONLY,
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            "bind" => bind = true,
            "rbind" => (bind, recursive) = (true, true),
            "rw" | "defaults" => {}
            other => data.push(other),
        }
    }
    if bind {
        if recursive {
            mount_bind_recursive(&*one.source, at)?;
        } else {
            mount_bind(&*one.source, at)?;
        }
        if !flags.is_empty() {
            mount_remount(at, flags | MountFlags::BIND, c"")?;
        }
        return Ok(());
    }
    let options = data.join(",");
    if options.len() <= OPTIONS_BYTES_MAX {
        let options = CString::new(options)?;
        return Ok(mount(&*one.source, at, &*one.r#type, flags, &*options)?);
    }
    if one.r#type != "overlay" {
        bail!("it has more options than a page holds");
    }
    mount_deep_overlay(&data, flags, at)
}

/// An overlay with more layers than mount(2) can be told of; containerd has its own way, which is to name
/// them from a directory near by.
fn mount_deep_overlay(data: &[&str], flags: MountFlags, at: &Path) -> Result<()> {
    let filesystem = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for option in data {
        match option.split_once('=') {
            Some(("lowerdir", dirs)) => {
                for dir in dirs.split(':') {
                    fsconfig_set_string(&filesystem, "lowerdir+", dir)?;
                }
            }
            Some((name, value)) => fsconfig_set_string(&filesystem, name, value)?,
            None => fsconfig_set_flag(&filesystem, *option)?,
        }
    }
    fsconfig_create(&filesystem)?;
    let attributes = if flags.contains(MountFlags::RDONLY) {
        MountAttrFlags::MOUNT_ATTR_RDONLY
    } else {
        MountAttrFlags::empty()
    };
    let made = fsmount(&filesystem, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(&made, "", CWD, at, flags)?)
}

/// What matters of a snapshot's mounts to whoever carries them out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shape {
    /// One directory to write into: a snapshot without a parent.
    Directory {
        /// The directory.
        at: PathBuf,
    },
    /// An overlay to write into.
    Overlay {
        /// Where what is written goes.
        upper: PathBuf,
        /// How many directories are below it: at least one.
        lowers: usize,
    },
    /// A tree that can't be written to: an overlay without an upper directory, or one directory.
    ReadOnly,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { .. } => f.write_str("a directory to write into"),
            Self::Overlay { .. } => f.write_str("an overlay to write into"),
            Self::ReadOnly => f.write_str("a tree to read only"),
        }
    }
}

impl Shape {
    /// The shape of the mounts that a snapshotter answered.
    ///
    /// # Errors
    ///
    /// If nobody could mount them as they are: more than one, paths that are not absolute, an overlay
    /// that lacks a directory.
    pub fn of(mounts: &[Mount]) -> Result<Self> {
        let [one] = mounts else {
            bail!("{} mounts instead of one", mounts.len());
        };
        let shape = Self::of_one(one).with_context(|| format!("{one:?}"))?;
        Ok(shape)
    }

    fn of_one(one: &Mount) -> Result<Self> {
        let value = |name: &str| {
            let mut options = one.options.iter();
            options.find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
        };
        let has = |name: &str| one.options.iter().any(|option| option == name);
        ensure!(one.target.is_empty(), "it is to be mounted below the root");
        match one.r#type.as_str() {
            "bind" => {
                ensure!(has("bind") || has("rbind"), "no option says bind");
                ensure!(has("ro") != has("rw"), "it is not said whether to write");
                let at = absolute(&one.source)?;
                Ok(if has("ro") {
                    Self::ReadOnly
                } else {
                    Self::Directory { at }
                })
            }
            "overlay" => {
                let lowers = value("lowerdir").context("there is no lowerdir")?;
                let lowers: Vec<PathBuf> =
                    lowers.split(':').map(absolute).collect::<Result<_>>()?;
                match (value("upperdir"), value("workdir")) {
                    (Some(upper), Some(work)) => {
                        absolute(work)?;
                        ensure!(!has("ro"), "it has an upper directory and says ro");
                        Ok(Self::Overlay {
                            upper: absolute(upper)?,
                            lowers: lowers.len(),
                        })
                    }
                    (None, None) => {
                        // The kernel refuses an overlay of one directory that nobody writes to.
                        ensure!(lowers.len() > 1, "one lowerdir and no upperdir");
                        Ok(Self::ReadOnly)
                    }
                    _ => bail!("of upperdir and workdir one is missing"),
                }
            }
            other => bail!("the type {other:?} is not for everybody"),
        }
    }

    /// The directory that takes what is written.
    #[must_use]
    pub fn writable(&self) -> Option<&Path> {
        match self {
            Self::Directory { at } => Some(at),
            Self::Overlay { upper, .. } => Some(upper),
            Self::ReadOnly => None,
        }
    }
}

fn absolute(path: &str) -> Result<PathBuf> {
    let path = PathBuf::from(path);
    ensure!(
        path.is_absolute() && !path.as_os_str().as_bytes().contains(&0),
        "{path:?} is not absolute"
    );
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Scratch, mounted, need};

    fn a_mount(kind: &str, source: &str, options: &[&str]) -> Mount {
        Mount {
            r#type: kind.to_owned(),
            source: source.to_owned(),
            target: String::new(),
            options: options.iter().map(|it| (*it).to_owned()).collect(),
        }
    }

    #[test]
    fn shapes_tell_what_can_be_written_to_and_refuse_what_nobody_can_mount() {
        let shape = |kind, source, options| Shape::of(&[a_mount(kind, source, options)]);
        let directory = shape("bind", "/a", &["rw", "rbind"]).unwrap();
        assert_eq!(directory.writable(), Some(Path::new("/a")));
        assert_eq!(
            shape("bind", "/a", &["ro", "rbind"]).unwrap(),
            Shape::ReadOnly
        );
        let options: &[&str] = &["index=off", "workdir=/w", "upperdir=/u", "lowerdir=/l:/m"];
        let overlay = shape("overlay", "overlay", options).unwrap();
        let (upper, lowers) = (PathBuf::from("/u"), 2);
        assert_eq!(overlay, Shape::Overlay { upper, lowers });
        let view = shape("overlay", "overlay", &["lowerdir=/l:/m"]).unwrap();
        assert_eq!(view, Shape::ReadOnly);
        for (kind, source, options) in [
            ("bind", "a", &["rw", "rbind"][..]),
            ("bind", "/a", &["rbind"]),
            ("bind", "/a", &["rw"]),
            ("overlay", "overlay", &["lowerdir=/l"]),
            ("overlay", "overlay", &["upperdir=/u", "lowerdir=/l"]),
            (
                "overlay",
                "overlay",
                &["workdir=w", "upperdir=/u", "lowerdir=/l"],
            ),
            ("overlay", "overlay", &["workdir=/w", "upperdir=/u"]),
            ("erofs", "/image", &["ro"]),
        ] {
            assert!(shape(kind, source, options).is_err(), "{kind} {options:?}");
        }
        assert!(Shape::of(&[]).is_err());
    }

    #[test]
    fn an_overlay_of_more_layers_than_a_page_names_is_mounted() {
        if !need::root() {
            return;
        }
        let scratch = Scratch::new();
        let lowers: Vec<String> = (0..70)
            .map(|at| {
                let dir = scratch.dir(format!("{at}-{}", "long".repeat(20)));
                fs_err::write(dir.join(format!("file-{at}")), b"x").unwrap();
                dir.to_str().unwrap().to_owned()
            })
            .collect();
        let options = [
            format!("lowerdir={}", lowers.join(":")),
            format!("upperdir={}", scratch.dir("upper").display()),
            format!("workdir={}", scratch.dir("work").display()),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let dir = scratch.dir("merged");
        let mounted = mount_all(&[a_mount("overlay", "overlay", &options)], &dir).unwrap();
        assert_eq!(fs_err::read_dir(mounted.dir()).unwrap().count(), 70);
        fs_err::write(dir.join("new"), b"y").unwrap();
        drop(mounted);
        assert_eq!(mounted::below(&dir), []);
        assert!(scratch.join("upper/new").exists());
    }

    #[test]
    fn what_is_bound_to_be_read_can_not_be_written_to() {
        if !need::root() {
            return;
        }
        let scratch = Scratch::new();
        let (from, to) = (scratch.dir("from"), scratch.dir("to"));
        let source = from.to_str().unwrap();
        let bound = mount_all(&[a_mount("bind", source, &["ro", "rbind"])], &to).unwrap();
        assert!(fs_err::write(to.join("file"), b"").is_err());
        drop(bound);
        let bound = mount_all(&[a_mount("bind", source, &["rw", "rbind"])], &to).unwrap();
        fs_err::write(to.join("file"), b"").unwrap();
        drop(bound);
        assert!(from.join("file").exists());
    }
}
