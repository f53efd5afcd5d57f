//! What is read is what is served.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use draught_mount::fuse::{fuse_ability, set_readahead};
use draught_testkit::compare::{assert_same, snapshot_dir};
use draught_testkit::{Scratch, need};
use rustix::fs::{FileType, Mode, XattrFlags};
use rustix::io::Errno;

use crate::mirror::Mirror;
use crate::served::{Served, assert_success, cmp, drop_pages, output, write_file};

fn fill(dir: &Path) {
    for (index, len) in [0, 1, 4095, 4096, 4097, 131_073, 1_048_579, 40_000_001]
        .into_iter()
        .enumerate()
    {
        write_file(&dir.join(format!("file of {len}")), len, index as u64);
    }
    fs_err::create_dir_all(dir.join("a/b/c/d")).unwrap();
    write_file(&dir.join("a/b/c/d/deep"), 10_000, 99);
    symlink("../a/b", dir.join("a/link")).unwrap();
    symlink("x".repeat(4000), dir.join("long link")).unwrap();
    fs_err::hard_link(dir.join("file of 4096"), dir.join("a/hard link")).unwrap();
    fs_err::set_permissions(dir.join("file of 1"), PermissionsExt::from_mode(0o4751)).unwrap();
    std::os::unix::fs::chown(dir.join("file of 4097"), Some(1234), Some(70_000)).unwrap();
    let (mode, device) = (Mode::from_raw_mode(0o640), rustix::fs::makedev(259, 1000));
    let (at, kind) = (dir.join("device"), FileType::CharacterDevice);
    rustix::fs::mknodat(rustix::fs::CWD, at, kind, mode, device).unwrap();
    let (at, kind) = (dir.join("fifo"), FileType::Fifo);
    rustix::fs::mknodat(rustix::fs::CWD, at, kind, mode, 0).unwrap();
    let name = std::ffi::OsStr::from_bytes(b"no \xFF text");
    fs_err::write(dir.join(name), b"content").unwrap();
    for (name, value) in [("user.one", &b"1"[..]), ("user.large", &[7; 3000][..])] {
        rustix::fs::setxattr(dir.join("a"), name, value, XattrFlags::empty()).unwrap();
    }
    let empty = (dir.join("file of 1"), "user.empty");
    rustix::fs::setxattr(empty.0, empty.1, b"", XattrFlags::empty()).unwrap();
}

#[test]
fn a_tree_reads_as_it_is() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    fill(scratch.path());
    let served = Served::start(Arc::new(Mirror::of(scratch.path())));
    let expected = snapshot_dir(scratch.path());
    assert_same(&snapshot_dir(&served.dir), &expected);
    // And again, what is cached and what is not.
    drop_pages(&served.join("file of 40000001"));
    assert_same(&snapshot_dir(&served.dir), &expected);
}

#[test]
fn an_attribute_that_is_missing_or_too_long_is_said_to_be() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    fill(scratch.path());
    let served = Served::start(Arc::new(Mirror::of(scratch.path())));
    let dir = served.join("a");
    let mut value = [0; 3000];
    let found = rustix::fs::getxattr(&dir, "user.large", &mut value);
    assert_eq!((found, value), (Ok(3000), [7; 3000]));
    let found = rustix::fs::getxattr(&dir, "user.large", &mut value[..2999]);
    assert_eq!(found, Err(Errno::RANGE));
    let found = rustix::fs::getxattr(&dir, "user.none", &mut value);
    assert_eq!(found, Err(Errno::NODATA));
}

#[test]
fn a_directory_of_ten_thousand_lists_each_once() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    let mut expected: Vec<String> = (0..10_000)
        .map(|index| format!("{index}-{}", "n".repeat(index % 100)))
        .collect();
    for name in &expected {
        fs_err::write(scratch.join(name), b"").unwrap();
    }
    expected.sort();
    let mirror = Arc::new(Mirror::of(scratch.path()));
    let served = Served::start(Arc::<Mirror>::clone(&mirror));
    let listed = || {
        let entries = fs_err::read_dir(&served.dir).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert!(listed() == expected);
    // A list is remembered.
    let lists = mirror.lists.load(Ordering::Relaxed);
    assert!(listed() == expected);
    assert_eq!(mirror.lists.load(Ordering::Relaxed), lists);
    // And with all attributes, in another process.
    let mut find = Command::new("find");
    find.arg(&served.dir).args(["-type", "f", "-size", "0"]);
    let found = output(&mut find);
    assert_eq!(
        found.stdout.iter().filter(|it| **it == b'\n').count(),
        10_000
    );
}

#[test]
fn what_was_said_once_is_remembered() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    write_file(&scratch.join("file"), 1_000_000, 1);
    let mirror = Arc::new(Mirror::of(scratch.path()));
    let served = Served::start(Arc::<Mirror>::clone(&mirror));
    let look = || {
        assert_eq!(fs_err::read(served.join("file")).unwrap().len(), 1_000_000);
        assert!(!served.join("nothing").exists());
        let count = |counter: &std::sync::atomic::AtomicUsize| counter.load(Ordering::Relaxed);
        (count(&mirror.lookups), count(&mirror.reads))
    };
    let first = look();
    assert_eq!(first.0, 2);
    assert_eq!(look(), first);
}

#[test]
fn files_that_are_added_and_grow_are_seen_if_nothing_is_final() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    write_file(&scratch.join("file"), 5_000, 1);
    let mut mirror = Mirror::of(scratch.path());
    mirror.is_final = false;
    let served = Served::start(Arc::new(mirror));
    let names = || fs_err::read_dir(&served.dir).unwrap().count();
    assert_eq!(fs_err::read(served.join("file")).unwrap().len(), 5_000);
    assert!(!served.join("second").exists());
    assert_eq!(names(), 1);
    write_file(&scratch.join("second"), 1, 2);
    assert!(served.join("second").exists());
    assert_eq!(names(), 2);
    write_file(&scratch.join("file"), 9_000, 1);
    let expected = fs_err::read(scratch.join("file")).unwrap();
    assert!(fs_err::read(served.join("file")).unwrap() == expected);
}

#[test]
fn programs_run_and_memory_can_be_mapped() {
    if !need::root() {
        return;
    }
    let Some(python) = need::tool("python3") else {
        return;
    };
    let scratch = Scratch::new();
    fs_err::copy("/bin/echo", scratch.join("echo")).unwrap();
    write_file(&scratch.join("file"), 9_000_001, 5);
    let served = Served::start(Arc::new(Mirror::of(scratch.path())));
    let said = output(Command::new(served.join("echo")).arg("from FUSE"));
    assert_eq!(said.stdout, b"from FUSE\n");
    let script = "import mmap,sys
a = open(sys.argv[1], 'rb'); b = open(sys.argv[2], 'rb')
m = mmap.mmap(a.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)
m.madvise(mmap.MADV_RANDOM)
sys.exit(0 if m[:] == b.read() else 1)";
    let mut mapping = Command::new(python);
    mapping.args(["-c", script]);
    mapping.arg(served.join("file")).arg(scratch.join("file"));
    assert_success(&output(&mut mapping));
}

#[test]
fn eight_readers_at_a_time_see_what_is_there() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    for seed in 0..8 {
        write_file(&scratch.join(format!("{seed}")), 9_000_000, seed);
    }
    let served = Served::start(Arc::new(Mirror::of(scratch.path())));
    for round in 0..3 {
        if round == 2 {
            set_readahead(
                std::os::fd::AsFd::as_fd(fs_err::File::open(&served.dir).unwrap().file()),
                1024,
            )
            .unwrap();
        }
        let readers: Vec<_> = (0..8)
            .map(|seed| {
                let name = format!("{seed}");
                drop_pages(&served.join(&name));
                let mut command = cmp(&served.join(&name), &scratch.join(&name));
                command.spawn().unwrap()
            })
            .collect();
        for mut reader in readers {
            assert!(reader.wait().unwrap().success());
        }
    }
}

#[test]
fn nothing_can_be_written() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    write_file(&scratch.join("file"), 10, 1);
    let served = Served::start(Arc::new(Mirror::of(scratch.path())));
    let error = |result: std::io::Result<()>| result.unwrap_err().kind();
    let read_only = std::io::ErrorKind::ReadOnlyFilesystem;
    assert_eq!(error(fs_err::write(served.join("new"), b"x")), read_only);
    assert_eq!(error(fs_err::write(served.join("file"), b"x")), read_only);
    assert_eq!(error(fs_err::remove_file(served.join("file"))), read_only);
}

#[test]
fn the_probe_says_that_it_works_and_leaves_nothing() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    let ability = fuse_ability(scratch.path());
    assert!(ability.usable, "{}", ability.why);
    assert_eq!(fs_err::read_dir(scratch.path()).unwrap().count(), 0);
    let nowhere = fuse_ability(&scratch.join("nowhere"));
    assert!(!nowhere.usable);
    assert!(nowhere.why.contains("nowhere"), "{}", nowhere.why);
}
