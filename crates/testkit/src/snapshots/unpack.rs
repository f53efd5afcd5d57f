//! Unpacking a layer into a directory, as a client of a snapshotter does.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use draught_tar::{Data, Reader};
use draught_tree::{Entry, EntryKind, Meta};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
    chownat, linkat, lsetxattr, makedev, mkdirat, mknodat, openat, openat2, statat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Marks a directory of an overlay's layer that hides those below it.
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// Bytes of a file that are written at a time.
const PIECE_BYTES: usize = 128 << 10;

/// What becomes of whiteouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// What they hide is removed: the directory shows the lower layers too.
    Remove,
    /// They stay, as overlays have them: the directory is this layer alone.
    Keep,
}

/// Unpacks a layer, a tar archive that is not compressed, into a directory.
///
/// Names are looked up within the directory, whatever symbolic links there are.
///
/// # Errors
///
/// If the archive can't be read, or the filesystem refuses something.
pub fn unpack(archive: impl Read, root: &Path, whiteouts: Whiteouts) -> Result<()> {
    let root = openat(
        CWD,
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut unpacking = Unpacking {
        root,
        whiteouts,
        brought: BTreeSet::new(),
        hidden: BTreeSet::new(),
        directories: Vec::new(),
        touched: BTreeMap::new(),
    };
    let mut reader = Reader::new(archive, draught_tar::Limits::default());
    while let Some(entry) = reader.next_entry()? {
        let path = entry.path.escape_ascii().to_string();
        let added = unpacking.add(&entry, &mut reader);
        added.with_context(|| format!("failed to unpack {path}"))?;
    }
    unpacking.finish()
}

struct Unpacking {
    root: OwnedFd,
    whiteouts: Whiteouts,
    /// Paths that this layer has.
    brought: BTreeSet<PathBuf>,
    /// Paths for which it has a whiteout.
    hidden: BTreeSet<PathBuf>,
    /// Directories of the layer; their times are set in the end.
    directories: Vec<(PathBuf, Meta)>,
    /// Directories that were there and got or lost names: their times are given back.
    touched: BTreeMap<PathBuf, Timestamps>,
}

/// A path as the layer has it, without dots and slashes that say nothing.
fn normal(path: &[u8]) -> PathBuf {
    let parts = path.split(|byte| *byte == b'/');
    let parts = parts.filter(|part| !part.is_empty() && *part != b".");
    parts.map(OsStr::from_bytes).collect()
}

/// A name that leads to an open directory, for calls that only take names.
fn name_of(dir: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd()))
}

impl Unpacking {
    /// Opens a directory below the root; makes it if it is not there.
    fn directory(&self, path: &Path) -> Result<OwnedFd> {
        let open = || {
            openat2(
                &self.root,
                if path.as_os_str().is_empty() {
                    Path::new(".")
                } else {
                    path
                },
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::IN_ROOT,
            )
        };
        match open() {
            Err(Errno::NOENT) => {
                let parent = self.directory(path.parent().context("it has no parent")?)?;
                let name = path.file_name().context("it has no name")?;
                mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                Ok(open()?)
            }
            other => Ok(other?),
        }
    }

    fn add<R: Read>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        let path = normal(&entry.path);
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            // The root's own entry.
            self.directories.push((path, entry.meta.clone()));
            return Ok(());
        };
        let above = path.parent().unwrap_or(Path::new("")).to_owned();
        let parent = self.directory(&above)?;
        if !self.touched.contains_key(&above) {
            let times = times_of(&parent)?;
            self.touched.insert(above.clone(), times);
        }
        if name.as_bytes() == OPAQUE {
            return self.opaque(&parent, &above);
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            let hidden = OsStr::from_bytes(hidden);
            remove(&parent, hidden)?;
            if self.whiteouts == Whiteouts::Keep {
                let device = makedev(0, 0);
                mknodat(
                    &parent,
                    hidden,
                    FileType::CharacterDevice,
                    Mode::empty(),
                    device,
                )?;
                self.hidden.insert(above.join(hidden));
            }
            return Ok(());
        }
        let there = statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW);
        let is_dir = matches!(entry.kind, EntryKind::Directory);
        let both_are =
            there.is_ok_and(|stat| is_dir && FileType::from_raw_mode(stat.st_mode).is_dir());
        if !both_are {
            remove(&parent, &name)?;
            self.make(&parent, &name, entry, reader)?;
        }
        if !matches!(entry.kind, EntryKind::HardLink(_)) {
            dress(&parent, &name, entry)?;
        }
        if is_dir {
            if self.hidden.remove(&path) {
                let this = name_of(&parent).join(&name);
                lsetxattr(this, OPAQUE_XATTR, b"y", XattrFlags::empty())?;
            }
            self.directories.push((path.clone(), entry.meta.clone()));
        }
        self.brought.insert(path);
        Ok(())
    }

    /// Hides what lower layers have in a directory.
    fn opaque(&self, dir: &OwnedFd, path: &Path) -> Result<()> {
        if self.whiteouts == Whiteouts::Keep {
            lsetxattr(
                name_of(dir).join("."),
                OPAQUE_XATTR,
                b"y",
                XattrFlags::empty(),
            )?;
            return Ok(());
        }
        for entry in fs_err::read_dir(name_of(dir))? {
            let name = entry?.file_name();
            if !self.brought.contains(&path.join(&name)) {
                remove(dir, &name)?;
            }
        }
        Ok(())
    }

    fn make<R: Read>(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let node = |kind, major, minor| {
            let device = makedev(major, minor);
            mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)
        };
        match &entry.kind {
            EntryKind::Directory => mkdirat(parent, name, Mode::from_raw_mode(0o700))?,
            EntryKind::Symlink(target) => symlinkat(&target[..], parent, name)?,
            EntryKind::HardLink(target) => {
                let target = normal(target);
                let from = self.directory(target.parent().unwrap_or(Path::new("")))?;
                let target = target.file_name().context("it links to the root")?;
                linkat(&from, target, parent, name, AtFlags::empty())?;
            }
            EntryKind::CharDevice { major, minor } => {
                node(FileType::CharacterDevice, *major, *minor)?;
            }
            EntryKind::BlockDevice { major, minor } => node(FileType::BlockDevice, *major, *minor)?,
            EntryKind::Fifo => node(FileType::Fifo, 0, 0)?,
            EntryKind::Socket => node(FileType::Socket, 0, 0)?,
            EntryKind::File { .. } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
                write(std::fs::File::from(file), reader)?;
            }
        }
        Ok(())
    }

    /// Sets the times of directories, which everything in them has changed.
    fn finish(self) -> Result<()> {
        for (path, times) in &self.touched {
            if let Ok(dir) = self.directory(path) {
                utimensat(CWD, name_of(&dir), times, AtFlags::empty())?;
            }
        }
        for (path, meta) in &self.directories {
            let Some(name) = path.file_name() else {
                let dir = name_of(&self.root).join(".");
                let owner = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
                chownat(CWD, &dir, Some(owner.0), Some(owner.1), AtFlags::empty())?;
                let mode = std::os::unix::fs::PermissionsExt::from_mode(u32::from(meta.mode));
                fs_err::set_permissions(&dir, mode)?;
                utimensat(CWD, &dir, &times(meta), AtFlags::empty())?;
                continue;
            };
            // A later entry may have put something else in its place, or removed it.
            let Ok(parent) = self.directory(path.parent().unwrap_or(Path::new(""))) else {
                continue;
            };
            let there = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW);
            if there.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir()) {
                utimensat(&parent, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
        Ok(())
    }
}

/// Removes whatever has the name, if something has.
fn remove(parent: &OwnedFd, name: &OsStr) -> Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Ok(fs_err::remove_dir_all(name_of(parent).join(name))?),
        Err(error) => Err(error.into()),
    }
}

fn write<R: Read>(mut file: std::fs::File, reader: &mut Reader<R>) -> Result<()> {
    let mut end = 0;
    loop {
        match reader.next_data(PIECE_BYTES)? {
            Data::Bytes(bytes) => {
                file.write_all(bytes)?;
                end += bytes.len() as u64;
            }
            Data::Hole(bytes) => {
                end += bytes as u64;
                file.seek(SeekFrom::Start(end))?;
            }
            Data::End => return Ok(file.set_len(end)?),
        }
    }
}

/// Owner, mode, attributes and times.
fn dress(parent: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<()> {
    let meta = &entry.meta;
    let owner = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    chownat(parent, name, Some(owner.0), Some(owner.1), nofollow)?;
    let path = name_of(parent).join(name);
    if !matches!(entry.kind, EntryKind::Symlink(_)) {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(u32::from(meta.mode));
        fs_err::set_permissions(&path, mode)?;
    }
    for (name, value) in &meta.xattrs {
        lsetxattr(&path, &name[..], value, XattrFlags::empty())?;
    }
    Ok(utimensat(parent, name, &times(meta), nofollow)?)
}

fn times_of(dir: &OwnedFd) -> Result<Timestamps> {
    let stat = statat(dir, "", AtFlags::EMPTY_PATH)?;
    let time = |tv_sec, tv_nsec| -> Result<Timespec> {
        let tv_nsec = i64::try_from(tv_nsec)?;
        Ok(Timespec { tv_sec, tv_nsec })
    };
    Ok(Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec)?,
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec)?,
    })
}

fn times(meta: &Meta) -> Timestamps {
    let time = Timespec {
        tv_sec: meta.mtime,
        tv_nsec: meta.mtime_nsec.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

#[cfg(test)]
mod tests {
    use draught_containerd::types::Mount;

    use super::super::mounting::mount_all;
    use super::*;
    use crate::compare::{Applied, assert_same, snapshot_dir};
    use crate::images::torture_layers;
    use crate::{Scratch, need};

    fn overlay(lowers: &[PathBuf], options: &[String]) -> Mount {
        let lowers: Vec<&str> = lowers.iter().map(|it| it.to_str().unwrap()).collect();
        let mut all = vec![format!("lowerdir={}", lowers.join(":"))];
        all.extend(options.iter().cloned());
        Mount {
            r#type: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options: all,
        }
    }

    /// Layers whose every entry has one meaning, whether what it hides is seen or not.
    fn layers() -> Vec<Vec<u8>> {
        // Links to names of lower layers need to see them.
        torture_layers().into_iter().take(2).collect()
    }

    #[test]
    fn what_is_unpacked_is_what_the_layers_say() {
        if !need::root() {
            return;
        }
        let scratch = Scratch::new();
        let dir = scratch.dir("merged");
        let mut applied = Applied::default();
        for layer in layers() {
            unpack(&layer[..], &dir, Whiteouts::Remove).unwrap();
            applied.layer(&layer[..]).unwrap();
        }
        assert_same(&snapshot_dir(&dir), &applied.snapshot());
    }

    #[test]
    fn layers_with_their_whiteouts_make_the_same_tree_as_an_overlay() {
        use draught_tree::Entry;
        if !need::root() {
            return;
        }
        let scratch = Scratch::new();
        let file = |path: &str, content: &str| -> (Entry, Vec<u8>) {
            let kind = EntryKind::File {
                bytes: content.len() as u64,
                chunks: Box::default(),
            };
            let meta = Meta {
                mode: 0o640,
                uid: 7,
                gid: 8,
                mtime: 1_600_000_000,
                ..Meta::default()
            };
            let path = path.as_bytes().into();
            (Entry { path, meta, kind }, content.as_bytes().to_vec())
        };
        let dir = |path: &str| -> (Entry, Vec<u8>) {
            let (mut entry, _) = file(path, "");
            entry.kind = EntryKind::Directory;
            entry.meta.mode = 0o750;
            (entry, Vec::new())
        };
        let lower = [
            dir("."),
            dir("a"),
            file("a/gone", "1"),
            file("a/stays", "2"),
            dir("opaque"),
            file("opaque/old", "3"),
            dir("late"),
            file("late/old", "4"),
        ];
        let upper = [
            dir("a"),
            file("a/.wh.gone", ""),
            dir("opaque"),
            file("opaque/new", "5"),
            file("opaque/.wh..wh..opq", ""),
            file(".wh.late", ""),
            dir("late"),
            file("late/new", "6"),
            file(".wh.never", ""),
            dir("."),
        ];
        let pack = |entries: &[(Entry, Vec<u8>)]| {
            let mut writer = draught_tar::Writer::new(Vec::new());
            for (entry, content) in entries {
                writer.entry(entry).unwrap();
                writer.data(content).unwrap();
            }
            writer.finish().unwrap()
        };
        let layers = [pack(&lower), pack(&upper)];
        let mut applied = Applied::default();
        let mut dirs = Vec::new();
        let merged = scratch.dir("merged");
        for (at, layer) in layers.iter().enumerate() {
            applied.layer(&layer[..]).unwrap();
            unpack(&layer[..], &merged, Whiteouts::Remove).unwrap();
            let dir = scratch.dir(at.to_string());
            unpack(&layer[..], &dir, Whiteouts::Keep).unwrap();
            dirs.insert(0, dir);
        }
        assert_same(&snapshot_dir(&merged), &applied.snapshot());
        let at = scratch.dir("overlay");
        let mounted = mount_all(&[overlay(&dirs, &[])], &at).unwrap();
        assert_same(&snapshot_dir(mounted.dir()), &applied.snapshot());
    }
}
