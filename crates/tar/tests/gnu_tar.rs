//! Archives read as GNU tar reads them, both its own in every format and ours.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs::FileTimes;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use draught_testkit::compare::{self, Applied, Snapshot};
use draught_testkit::{Scratch, facts, images, need, process};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};

fn gnu_tar() -> Option<PathBuf> {
    let tar = need::tool("tar").filter(|_| need::root())?;
    let version = process::run(Command::new(&tar).arg("--version"));
    if version.starts_with("tar (GNU tar)") {
        return Some(tar);
    }
    need::skip("tar is not GNU tar");
    None
}

/// What GNU tar makes of an archive.
fn extracted(tar: &Path, archive: &Path, to: &Path, options: &[&str]) -> Snapshot {
    fs_err::create_dir_all(to).unwrap();
    process::run(
        Command::new(tar)
            .args(["-x", "-p", "--numeric-owner"])
            .args(options)
            .args(["--xattrs", "--xattrs-include=*", "-f"])
            .arg(archive)
            .arg("-C")
            .arg(to),
    );
    compare::snapshot_dir(to)
}

fn applied(archive: &Path) -> Snapshot {
    let mut applied = Applied::default();
    applied.layer(fs_err::File::open(archive).unwrap()).unwrap();
    applied.snapshot()
}

/// Which things a format can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// Short names, files, directories, links.
    V7,
    /// And devices, pipes, names of 255 bytes.
    Ustar,
    /// And endless names, large owners, times before 1970, holes.
    Gnu,
    /// And extended attributes and nanoseconds.
    Pax,
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn node(path: &Path, kind: FileType, major: u32, minor: u32) {
    let number = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(CWD, path, kind, Mode::from(0o640), number).unwrap();
}

/// A directory with everything that a format can hold.
fn populate(root: &Path, reach: Reach) {
    let dir = root.join("dir");
    fs_err::create_dir_all(dir.join("sub/empty")).unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = dir.join(name);
        fs_err::write(&path, content).unwrap();
        path
    };
    for bytes in [0, 1, 511, 512, 513, 100_000] {
        file(&format!("file-{bytes}"), &vec![b'x'; bytes]);
    }
    let setuid = file("setuid", b"x");
    fs_err::set_permissions(setuid, PermissionsExt::from_mode(0o4711)).unwrap();
    std::os::unix::fs::lchown(file("owned", b"x"), Some(1234), Some(65_534)).unwrap();
    fs_err::hard_link(dir.join("owned"), dir.join("sub/hard")).unwrap();
    fs_err::os::unix::fs::symlink("sub/hard", dir.join("soft")).unwrap();
    let name = std::ffi::OsStr::from_bytes(b"\xff not utf-8");
    fs_err::write(dir.join(name), b"x").unwrap();
    if reach >= Reach::Ustar {
        node(&dir.join("char"), FileType::CharacterDevice, 1, 3);
        node(&dir.join("block"), FileType::BlockDevice, 259, 65_536);
        node(&dir.join("pipe"), FileType::Fifo, 0, 0);
        let deep = dir.join("d".repeat(90)).join("e".repeat(50));
        fs_err::create_dir_all(&deep).unwrap();
        fs_err::write(deep.join("f".repeat(60)), b"deep").unwrap();
    }
    if reach >= Reach::Gnu {
        let deep = dir.join("g".repeat(255)).join("h".repeat(255));
        fs_err::create_dir_all(&deep).unwrap();
        fs_err::write(deep.join("i".repeat(200)), b"deeper").unwrap();
        fs_err::hard_link(deep.join("i".repeat(200)), dir.join("hard-to-deep")).unwrap();
        fs_err::os::unix::fs::symlink("t/".repeat(1000), dir.join("long-soft")).unwrap();
        std::os::unix::fs::lchown(file("owner-32", b"x"), Some(3_000_000_000), Some(2_097_152))
            .unwrap();
        set_time(&file("before-1970", b"x"), -1_000_000, 0);
        set_time(&file("after-2242", b"x"), 9_000_000_000, 0);
        sparse_files(&dir);
    }
    if reach >= Reach::Pax {
        set_time(&file("nanoseconds", b"x"), 1_700_000_000, 123_456_789);
        set_time(&file("before-with-fraction", b"x"), -7, 250_000_000);
        let path = file("attributes", b"x");
        facts::set_xattr(&path, "user.a", b"\0=\n\xff");
        facts::set_xattr(&path, "user.empty", b"");
        facts::set_xattr(&path, "trusted.t", &[7; 1000]);
        facts::set_xattr(&dir.join("sub"), "user.on", b"a directory");
        facts::set_xattr(&dir.join("soft"), "trusted.on", b"a symbolic link");
    }
    // Directories last: what is made in them changes their times.
    set_time(&dir.join("sub"), 1_500_000_000, 0);
    set_time(&dir, 1_400_000_000, 0);
}

fn sparse_files(dir: &Path) {
    for (name, bytes, pieces) in [
        ("hole", 1_000_000, 0),
        ("hole-at-end", 1_000_000, 1),
        ("few-holes", 2_000_000, 3),
        // More than fit in one header, and than fit in one more block.
        ("many-holes", 10_000_000, 100),
    ] {
        let file = fs_err::File::create(dir.join(name)).unwrap();
        file.set_len(bytes).unwrap();
        for piece in 0..pieces {
            let at = piece * (bytes / pieces);
            file.file()
                .write_all_at(format!("piece {piece}").as_bytes(), at)
                .unwrap();
        }
    }
    let file = fs_err::File::create(dir.join("data-at-end")).unwrap();
    file.file().write_all_at(b"end", 5_000_000).unwrap();
}

fn check_format(reach: Reach, options: &[&str]) {
    let Some(tar) = gnu_tar() else { return };
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    populate(&source, reach);
    let archive = scratch.join("archive.tar");
    process::run(
        Command::new(&tar)
            .args(["-c", "--numeric-owner"])
            .args((reach >= Reach::Gnu).then_some("-S"))
            .args(options)
            .arg("-f")
            .arg(&archive)
            .arg("-C")
            .arg(&source)
            .args(["dir", "--sort=name"]),
    );
    let mut got = applied(&archive);
    let mut expected = extracted(&tar, &archive, &scratch.join("extracted"), &[]);
    // The archive says nothing of the root: GNU tar leaves it as the directory was.
    assert!(got.remove(&b"/"[..]).is_some() && expected.remove(&b"/"[..]).is_some());
    assert!(got.len() >= 14, "only {} paths", got.len());
    compare::assert_same(&got, &expected);
}

#[test]
fn format_v7() {
    check_format(Reach::V7, &["--format=v7"]);
}

#[test]
fn format_ustar() {
    check_format(Reach::Ustar, &["--format=ustar"]);
}

#[test]
fn format_oldgnu() {
    check_format(Reach::Gnu, &["--format=oldgnu"]);
}

#[test]
fn format_gnu() {
    check_format(Reach::Gnu, &["--format=gnu"]);
}

#[test]
fn format_pax_with_sparse_files_of_version_0_0() {
    check_format(
        Reach::Pax,
        &[
            "--format=pax",
            "--xattrs",
            "--xattrs-include=*",
            "--sparse-version=0.0",
        ],
    );
}

#[test]
fn format_pax_with_sparse_files_of_version_0_1() {
    check_format(
        Reach::Pax,
        &[
            "--format=pax",
            "--xattrs",
            "--xattrs-include=*",
            "--sparse-version=0.1",
        ],
    );
}

#[test]
fn format_pax_with_sparse_files_of_version_1_0() {
    check_format(
        Reach::Pax,
        &[
            "--format=pax",
            "--xattrs",
            "--xattrs-include=*",
            "--sparse-version=1.0",
        ],
    );
}

#[test]
fn global_pax_headers() {
    check_format(
        Reach::Gnu,
        &[
            "--format=pax",
            "--pax-option=uid=77,gid=78,comment=all of them",
        ],
    );
}

#[test]
fn global_pax_headers_with_records_that_replace_them() {
    check_format(
        Reach::Gnu,
        &["--format=pax", "--pax-option=mtime=5,gid:=79,delete=atime"],
    );
}

#[test]
fn files_of_eight_gibibytes_and_more() {
    let Some(tar) = gnu_tar() else { return };
    let scratch = Scratch::new();
    let bytes = 9 << 30;
    let file = fs_err::File::create(scratch.join("big")).unwrap();
    file.set_len(bytes).unwrap();
    file.file().write_all_at(b"end", bytes - 3).unwrap();
    for options in [
        &["--format=gnu"][..],
        &["--format=oldgnu"],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let archive = scratch.join("archive.tar");
        process::run(
            Command::new(&tar)
                .args(["-c", "-S"])
                .args(options)
                .arg("-f")
                .arg(&archive)
                .arg("-C")
                .arg(scratch.path())
                .arg("big"),
        );
        let archive = fs_err::File::open(&archive).unwrap();
        let mut reader = draught_tar::Reader::new(archive, draught_tar::Limits::default());
        let entry = reader.next_entry().unwrap().unwrap();
        assert_eq!(&*entry.path, b"big");
        let mut zeros = 0;
        let mut data = Vec::new();
        loop {
            match reader.next_data(1 << 30).unwrap() {
                draught_tar::Data::Bytes(bytes) => data.extend_from_slice(bytes),
                draught_tar::Data::Hole(bytes) => zeros += bytes as u64,
                draught_tar::Data::End => break,
            }
        }
        assert_eq!(zeros + data.len() as u64, bytes, "{options:?}");
        assert!(data.ends_with(b"\0end"));
        assert_eq!(reader.next_entry().unwrap(), None);
    }
}

#[test]
fn what_we_write_is_what_gnu_tar_reads() {
    let Some(tar) = gnu_tar() else { return };
    let scratch = Scratch::new();
    // The first two layers: those above have whiteouts, of which tar knows nothing.
    for (number, layer) in images::torture_layers().into_iter().take(2).enumerate() {
        let archive = scratch.join(format!("{number}.tar"));
        fs_err::write(&archive, layer).unwrap();
        let mut got = applied(&archive);
        let to = scratch.join(format!("extracted-{number}"));
        // In the second layer a file takes the place of a directory that has a child, which GNU tar
        // does only if asked; but then it also empties directories whose entries come late, as they
        // do in the first.
        let options = if number == 1 {
            &["--recursive-unlink"][..]
        } else {
            &[]
        };
        let mut expected = extracted(&tar, &archive, &to, options);
        if number == 1 {
            // It has no entry for the root.
            assert!(got.remove(&b"/"[..]).is_some() && expected.remove(&b"/"[..]).is_some());
            // GNU tar puts symbolic links that could lead outside in place at the very end, and
            // removes what is in the way late: the times of these two directories suffer. umoci
            // restores them.
            for dir in [&b"/usr"[..], b"/twice"] {
                assert_ne!(expected[dir].mtime, got[dir].mtime);
                expected.get_mut(dir).unwrap().mtime = got[dir].mtime;
            }
        }
        compare::assert_same(&got, &expected);
    }
}

#[test]
fn times_of_directories_are_restored_after_their_children_came() {
    // A guard for the comparisons above: they would be worthless if the extraction touched times.
    let Some(tar) = gnu_tar() else { return };
    let scratch = Scratch::new();
    let source = scratch.dir("source/d");
    fs_err::write(source.join("f"), b"x").unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let dir = fs_err::File::open(&source).unwrap();
    dir.file()
        .set_times(FileTimes::new().set_modified(old))
        .unwrap();
    let archive = scratch.join("archive.tar");
    process::run(
        Command::new(&tar)
            .args(["-c", "-f"])
            .arg(&archive)
            .arg("-C")
            .arg(scratch.join("source"))
            .arg("d"),
    );
    let expected = extracted(&tar, &archive, &scratch.join("extracted"), &[]);
    assert_eq!(expected[&b"/d"[..]].mtime, (1_000_000, 0));
    assert_eq!(applied(&archive)[&b"/d"[..]].mtime, (1_000_000, 0));
}
