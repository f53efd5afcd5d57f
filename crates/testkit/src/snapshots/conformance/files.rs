//! What is written is what is read on top of it, through mounts.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, makedev, mknodat,
    utimensat,
};

use super::stage::{Stage, equal};
use crate::compare::{Snapshot, diff, snapshot_dir};

fn write(path: &Path, content: &str) -> Result<()> {
    Ok(fs_err::write(path, content)?)
}

fn reads(path: &Path, content: &str) -> Result<()> {
    let got = fs_err::read_to_string(path)?;
    equal(&path.display().to_string(), got.as_str(), content)
}

/// Fails unless both trees are the same. The root is a snapshot's own.
pub(super) fn same(what: &str, got: &Snapshot, expected: &Snapshot) -> Result<()> {
    let (mut got, mut expected) = (got.clone(), expected.clone());
    got.remove(&b"/"[..]);
    expected.remove(&b"/"[..]);
    let lines = diff(&got, &expected);
    ensure!(lines.is_empty(), "{what}: {}", lines.join("; "));
    Ok(())
}

pub(super) fn what_is_written_is_in_the_layer(stage: &Stage) -> Result<()> {
    let layer = stage.layer("layer", "", |dir| {
        fs_err::create_dir_all(dir.join("a/b"))?;
        write(&dir.join("a/b/file"), "first")?;
        write(&dir.join("changed"), "before")
    })?;
    let upper = stage.layer("upper", &layer, |dir| {
        reads(&dir.join("a/b/file"), "first")?;
        write(&dir.join("changed"), "after")?;
        write(&dir.join("a/new"), "new")?;
        Ok(fs_err::rename(dir.join("a/b/file"), dir.join("a/b/moved"))?)
    })?;
    let mounts = stage.view(&stage.name("view"), &upper)?;
    stage.within(&mounts, |dir| {
        reads(&dir.join("a/b/moved"), "first")?;
        reads(&dir.join("a/new"), "new")?;
        reads(&dir.join("changed"), "after")?;
        ensure!(!dir.join("a/b/file").exists(), "the old name is there");
        Ok(())
    })
}

pub(super) fn layers_do_not_see_what_is_above_them(stage: &Stage) -> Result<()> {
    let layer = stage.layer("layer", "", |dir| write(&dir.join("file"), "lower"))?;
    let mut seen = Vec::new();
    let mut look = |name: &str| {
        let mounts = stage.view(&stage.name(name), &layer)?;
        seen.push(stage.within(&mounts, |dir| Ok(snapshot_dir(dir)))?);
        anyhow::Ok(())
    };
    look("before")?;
    stage.layer("upper", &layer, |dir| {
        write(&dir.join("file"), "upper")?;
        write(&dir.join("more"), "upper")
    })?;
    let active = stage.name("active");
    let mounts = stage.prepare(&active, &layer)?;
    stage.within(&mounts, |dir| Ok(fs_err::remove_file(dir.join("file"))?))?;
    look("after")?;
    let [before, after] = &seen[..] else {
        anyhow::bail!("looked {} times", seen.len());
    };
    same("the layer, once there is one on it", after, before)
}

pub(super) fn siblings_do_not_see_each_other(stage: &Stage) -> Result<()> {
    let layer = stage.layer("layer", "", |dir| write(&dir.join("file"), "lower"))?;
    let (one, other) = (stage.name("one"), stage.name("other"));
    let (one, other) = (stage.prepare(&one, &layer)?, stage.prepare(&other, &layer)?);
    stage.within(&one, |dir| {
        write(&dir.join("file"), "changed")?;
        write(&dir.join("more"), "more")
    })?;
    stage.within(&other, |dir| {
        reads(&dir.join("file"), "lower")?;
        ensure!(!dir.join("more").exists(), "the sibling's file is there");
        Ok(())
    })
}

pub(super) fn what_is_removed_is_gone(stage: &Stage) -> Result<()> {
    let layer = stage.layer("layer", "", |dir| {
        fs_err::create_dir_all(dir.join("dir/deep"))?;
        write(&dir.join("dir/deep/file"), "1")?;
        write(&dir.join("dir/kept"), "2")?;
        write(&dir.join("file"), "3")
    })?;
    let upper = stage.layer("upper", &layer, |dir| {
        fs_err::remove_dir_all(dir.join("dir/deep"))?;
        Ok(fs_err::remove_file(dir.join("file"))?)
    })?;
    let third = stage.layer("third", &upper, |dir| {
        ensure!(!dir.join("file").exists(), "a removed file is there");
        write(&dir.join("file"), "again")
    })?;
    for (name, parent) in [("view", &upper), ("view-third", &third)] {
        let mounts = stage.view(&stage.name(name), parent)?;
        stage.within(&mounts, |dir| {
            let deep = dir.join("dir/deep");
            ensure!(!deep.exists(), "a removed directory is there");
            let names = fs_err::read_dir(dir.join("dir"))?.count();
            equal("names in the directory", names, 1)?;
            if parent == &third {
                return reads(&dir.join("file"), "again");
            }
            ensure!(!dir.join("file").exists(), "a removed file is there");
            Ok(())
        })?;
    }
    Ok(())
}

pub(super) fn a_directory_made_anew_is_empty(stage: &Stage) -> Result<()> {
    let layer = stage.layer("layer", "", |dir| {
        fs_err::create_dir_all(dir.join("dir/sub"))?;
        write(&dir.join("dir/old"), "1")?;
        write(&dir.join("dir/sub/old"), "2")?;
        write(&dir.join("file"), "3")
    })?;
    let upper = stage.layer("upper", &layer, |dir| {
        fs_err::remove_dir_all(dir.join("dir"))?;
        fs_err::create_dir(dir.join("dir"))?;
        write(&dir.join("dir/new"), "4")?;
        // And one kind for another.
        fs_err::remove_file(dir.join("file"))?;
        fs_err::create_dir(dir.join("file"))?;
        write(&dir.join("file/inner"), "5")
    })?;
    let top = stage.layer("top", &upper, |dir| write(&dir.join("dir/newer"), "6"))?;
    let mounts = stage.view(&stage.name("view"), &top)?;
    stage.within(&mounts, |dir| {
        ensure!(!dir.join("dir/old").exists(), "what was in it is there");
        ensure!(!dir.join("dir/sub").exists(), "what was in it is there");
        reads(&dir.join("dir/new"), "4")?;
        reads(&dir.join("dir/newer"), "6")?;
        reads(&dir.join("file/inner"), "5")
    })
}

/// Everything that a filesystem can keep of a file.
fn everything(dir: &Path) -> Result<()> {
    for (name, mode) in [
        ("setuid", 0o4755),
        ("all", 0o7777),
        ("nothing", 0),
        ("plain", 0o644),
    ] {
        let path = dir.join(name);
        write(&path, name)?;
        // In this order: a new owner takes the bits away.
        chown(&path, Some(1000), Some(65_536))?;
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    }
    fs_err::create_dir(dir.join("sticky"))?;
    let sticky = std::fs::Permissions::from_mode(0o1777);
    fs_err::set_permissions(dir.join("sticky"), sticky)?;
    symlink("no/such/../thing", dir.join("link"))?;
    lchown(dir.join("link"), Some(5), Some(6))?;
    let node = |name: &str, kind, major, minor| {
        let mode = Mode::from_raw_mode(0o640);
        mknodat(CWD, dir.join(name), kind, mode, makedev(major, minor))
    };
    node("null", FileType::CharacterDevice, 1, 3)?;
    node("disk", FileType::BlockDevice, 8, 17)?;
    node("pipe", FileType::Fifo, 0, 0)?;
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let xattr = |name: &str, key: &str, value: &[u8]| {
        lsetxattr(dir.join(name), key, value, XattrFlags::empty())
    };
    xattr("plain", "user.some", b"\0=\xff")?;
    xattr("plain", "trusted.only-root", b"1")?;
    xattr("plain", "security.capability", &capability)?;
    xattr("sticky", "user.on", b"a directory")?;
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    for (name, seconds, nanoseconds) in [
        ("plain", 1_600_000_000, 123_456_789),
        ("sticky", 1_500_000_000, 1),
        ("link", 5_000_000_000, 0),
    ] {
        let times = Timestamps {
            last_access: time(seconds, 0),
            last_modification: time(seconds, nanoseconds),
        };
        utimensat(CWD, dir.join(name), &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

pub(super) fn all_kinds_and_attributes_are_kept(stage: &Stage) -> Result<()> {
    let below = stage.layer("below", "", |dir| write(&dir.join("below"), "1"))?;
    for (name, parent) in [("alone", ""), ("upper", below.as_str())] {
        let mut written = Snapshot::new();
        let layer = stage.layer(name, parent, |dir| {
            everything(dir)?;
            written = snapshot_dir(dir);
            Ok(())
        })?;
        let mounts = stage.view(&stage.name(&format!("{name}-view")), &layer)?;
        let read = stage.within(&mounts, |dir| Ok(snapshot_dir(dir)))?;
        same("a view of what was written", &read, &written)?;
        let active = stage.name(&format!("{name}-active"));
        let mounts = stage.prepare(&active, &layer)?;
        let read = stage.within(&mounts, |dir| Ok(snapshot_dir(dir)))?;
        same("a snapshot on what was written", &read, &written)?;
    }
    // Programs see them as well.
    let mounts = stage.view(&stage.name("last"), &stage.name("upper"))?;
    stage.within(&mounts, |dir| {
        let mut stat = Command::new("stat");
        stat.args(["--format", "%u:%g %a"]).arg(dir.join("setuid"));
        let output = stat.output().context("failed to start stat")?;
        equal("stat says", &output.stdout[..], b"1000:65536 4755\n")
    })
}

pub(super) fn hard_links_stay_links(stage: &Stage) -> Result<()> {
    let layer = stage.layer("layer", "", |dir| {
        write(&dir.join("one"), "shared")?;
        fs_err::hard_link(dir.join("one"), dir.join("two"))?;
        fs_err::create_dir(dir.join("dir"))?;
        Ok(fs_err::hard_link(dir.join("one"), dir.join("dir/three"))?)
    })?;
    let mounts = stage.view(&stage.name("view"), &layer)?;
    stage.within(&mounts, |dir| {
        let meta = |name: &str| fs_err::metadata(dir.join(name));
        let (one, two, three) = (meta("one")?, meta("two")?, meta("dir/three")?);
        equal("names", one.nlink(), 3)?;
        equal("inodes", (one.ino(), one.ino()), (two.ino(), three.ino()))
    })
}
