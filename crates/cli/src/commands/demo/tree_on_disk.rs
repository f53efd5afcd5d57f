//! A directory that layers are unpacked into, as every container runtime without lazy reading does.

use std::io::{self, Read};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use draught_tree::{Entry, EntryKind, Meta};
use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;

/// A name that begins so takes another one away.
const WHITEOUT: &[u8] = b".wh.";

/// A name that makes its directory hide the lower layers' one.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A root directory. Nothing outside of it is touched, whatever a layer says: every path is
/// resolved by the kernel with this directory as its root.
#[derive(Debug)]
pub(crate) struct TreeOnDisk {
    root: OwnedFd,
    /// Whether owners and devices can be made.
    privileged: bool,
}

/// Where an entry goes: an open directory, and a name in it.
struct Place {
    parent: OwnedFd,
    name: Box<[u8]>,
}

impl TreeOnDisk {
    /// Unpacks into an empty directory.
    pub(crate) fn new(root: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(root, flags, Mode::empty())
            .with_context(|| format!("open {}", root.display()))?;
        Ok(Self {
            root,
            privileged: rustix::process::geteuid().is_root(),
        })
    }

    /// Makes an entry of a layer, with its content if it is a file.
    pub(crate) fn add(&self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        self.make(entry, content)
            .with_context(|| format!("unpack {}", String::from_utf8_lossy(&entry.path)))
    }

    fn make(&self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        let Some(place) = self.place(&entry.path)? else {
            // The root itself: it is there.
            return Ok(());
        };
        if &*place.name == OPAQUE {
            return place.clear();
        }
        if let Some(hidden) = place.name.strip_prefix(WHITEOUT) {
            return place.remove(hidden);
        }
        if entry.kind == EntryKind::Directory {
            match fs::mkdirat(&place.parent, &*place.name, Mode::from(0o755)) {
                Err(Errno::EXIST) if !place.is_directory() => {
                    place.remove(&place.name)?;
                    fs::mkdirat(&place.parent, &*place.name, Mode::from(0o755))?;
                }
                Err(Errno::EXIST) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
            return self.adorn(&place, &entry.meta, false);
        }
        place.remove(&place.name)?;
        self.leaf(&place, entry, content)
    }

    /// Makes what is not a directory.
    fn leaf(&self, place: &Place, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        let Place { parent, name } = place;
        let (kind, device) = match &entry.kind {
            EntryKind::Directory => return Ok(()),
            EntryKind::File { .. } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = fs::openat(parent, &**name, flags, Mode::from(0o600))?;
                let mut file = std::fs::File::from(file);
                io::copy(content, &mut file)?;
                return self.adorn(place, &entry.meta, false);
            }
            EntryKind::Symlink(target) => {
                fs::symlinkat(&**target, parent, &**name)?;
                return self.adorn(place, &entry.meta, true);
            }
            EntryKind::HardLink(target) => {
                let Some(target) = self.place(target)? else {
                    bail!("link to the root directory")
                };
                fs::linkat(
                    &target.parent,
                    &*target.name,
                    parent,
                    &**name,
                    AtFlags::empty(),
                )?;
                return Ok(());
            }
            EntryKind::CharDevice { major, minor } => (FileType::CharacterDevice, (*major, *minor)),
            EntryKind::BlockDevice { major, minor } => (FileType::BlockDevice, (*major, *minor)),
            EntryKind::Fifo => (FileType::Fifo, (0, 0)),
            EntryKind::Socket => (FileType::Socket, (0, 0)),
        };
        if self.privileged || kind == FileType::Fifo {
            let device = fs::makedev(device.0, device.1);
            fs::mknodat(parent, &**name, kind, Mode::from(0o600), device)?;
            self.adorn(place, &entry.meta, false)?;
        }
        Ok(())
    }

    /// The directory an entry goes to, made if it is missing; `None` for the root.
    fn place(&self, path: &[u8]) -> Result<Option<Place>> {
        let mut names: Vec<&[u8]> = Vec::new();
        for name in path.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => bail!("leave the image: the path has \"..\""),
                name => names.push(name),
            }
        }
        let Some((name, parents)) = names.split_last() else {
            return Ok(None);
        };
        let parent = parents.join(&b'/');
        let opened = self.directory(&parent);
        let parent = match opened {
            Err(Errno::NOENT) => self.make_directories(parents)?,
            opened => opened?,
        };
        Ok(Some(Place {
            parent,
            name: (*name).into(),
        }))
    }

    fn directory(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { &b"."[..] } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        fs::openat2(self.root.as_fd(), path, flags, Mode::empty(), inside)
    }

    /// Directories that no entry announced.
    fn make_directories(&self, names: &[&[u8]]) -> Result<OwnedFd> {
        let mut path = Vec::new();
        let mut at = self.directory(&path)?;
        for name in names {
            match fs::mkdirat(&at, *name, Mode::from(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            path.extend_from_slice(name);
            path.push(b'/');
            at = self.directory(&path)?;
        }
        Ok(at)
    }

    /// Owner, mode and time.
    fn adorn(&self, place: &Place, meta: &Meta, symlink: bool) -> Result<()> {
        let Place { parent, name } = place;
        let here = AtFlags::SYMLINK_NOFOLLOW;
        if self.privileged {
            let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
            fs::chownat(parent, &**name, Some(uid), Some(gid), here)?;
        }
        if !symlink {
            let mode = Mode::from(u32::from(meta.mode));
            // Just made, or a directory: it is no symbolic link.
            fs::chmodat(parent, &**name, mode, AtFlags::empty())?;
        }
        let time = Timespec {
            tv_sec: meta.mtime,
            tv_nsec: i64::from(meta.mtime_nsec),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        Ok(fs::utimensat(parent, &**name, &times, here)?)
    }
}

impl Place {
    fn is_directory(&self) -> bool {
        fs::statat(&self.parent, &*self.name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    /// The path of a name in the open directory, wherever that is.
    fn path(&self, name: &[u8]) -> PathBuf {
        let open = PathBuf::from(format!("/proc/self/fd/{}", self.parent.as_raw_fd()));
        open.join(std::ffi::OsStr::from_bytes(name))
    }

    /// Removes a name and what is below it; that it is not there is fine.
    fn remove(&self, name: &[u8]) -> Result<()> {
        if matches!(name, b"" | b"." | b"..") {
            bail!("remove a name that is none");
        }
        match fs::unlinkat(&self.parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => Ok(fs_err::remove_dir_all(self.path(name))?),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes everything in the directory.
    fn clear(&self) -> Result<()> {
        for entry in fs_err::read_dir(self.path(b"."))? {
            self.remove(entry?.file_name().as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: EntryKind) -> Entry {
        Entry {
            path: path.as_bytes().into(),
            meta: Meta {
                mode: 0o755,
                ..Meta::default()
            },
            kind,
        }
    }

    fn file(path: &str) -> Entry {
        entry(
            path,
            EntryKind::File {
                bytes: 1,
                chunks: Box::default(),
            },
        )
    }

    fn symlink(path: &str, target: &str) -> Entry {
        entry(path, EntryKind::Symlink(target.as_bytes().into()))
    }

    #[test]
    fn links_do_not_lead_out_of_the_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let outside = scratch.path().join("outside");
        let root = scratch.path().join("root");
        fs_err::create_dir(&outside).unwrap();
        fs_err::create_dir(&root).unwrap();
        let tree = TreeOnDisk::new(&root).unwrap();
        let mut nothing = io::empty();
        tree.add(&symlink("out", outside.to_str().unwrap()), &mut nothing)
            .unwrap();
        tree.add(&symlink("up", "../../.."), &mut nothing).unwrap();
        assert!(tree.add(&file("../evil"), &mut nothing).is_err());
        assert!(tree.add(&file("out/evil"), &mut nothing).is_err());
        tree.add(&file("up/good"), &mut nothing).unwrap();
        assert!(root.join("good").exists());
        assert_eq!(fs_err::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn whiteouts_and_opaque_directories_hide_lower_layers() {
        let scratch = tempfile::tempdir().unwrap();
        let tree = TreeOnDisk::new(scratch.path()).unwrap();
        let mut nothing = io::empty();
        for lower in ["a/one", "a/deep/two", "b/three"] {
            tree.add(&file(lower), &mut nothing).unwrap();
        }
        tree.add(&file("a/.wh.deep"), &mut nothing).unwrap();
        tree.add(&file("b/.wh..wh..opq"), &mut nothing).unwrap();
        tree.add(&file("b/four"), &mut nothing).unwrap();
        let there = |path: &str| scratch.path().join(path).exists();
        assert!(there("a/one") && there("b/four"));
        assert!(!there("a/deep") && !there("b/three"));
    }
}
