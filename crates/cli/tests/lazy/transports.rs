//! The three transports give the same: one suite over all of them.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use draught_testkit::{need, process};
use rustix::fs::XattrFlags;

use crate::harness::{Numbers, Stage, children, eventually, kill, succeed};

/// Times that the worker is killed.
const KILLS: u64 = 40;
/// Readers at once.
const READERS: u64 = 8;
/// Names in the directory that has many.
const NAMES: u32 = 3000;

struct Case {
    stage: Stage,
    transport: &'static str,
}

impl Case {
    fn new(transport: &'static str) -> Option<Self> {
        let stage = Stage::new()?;
        Some(Self { stage, transport })
    }

    fn mount_as(&self, reference: &str, dir: &Path) -> Output {
        let dir = dir.to_str().unwrap();
        let args = ["mount", "--transport", self.transport, reference, dir];
        self.stage.draught(&args)
    }

    fn mount(&self) {
        let said = succeed(&self.mount_as(&self.stage.reference(), &self.stage.mountpoint));
        let by = format!("by {}", self.transport);
        assert!(said.contains(&by), "{said}");
    }

    /// Puts a directory into the registry as an image.
    fn push(&self, rootfs: &Path, name: &str) -> String {
        let reference = self.stage.registry.reference(name);
        let source = format!("dir:{}", rootfs.display());
        succeed(&self.stage.draught(&["convert", &source, &reference]));
        reference
    }
}

/// A tree that has everything that a tree can have.
fn odd_tree(root: &Path) {
    fs_err::create_dir_all(root.join("many")).unwrap();
    for name in 0..NAMES {
        fs_err::write(root.join(format!("many/{name}")), name.to_string()).unwrap();
    }
    fs_err::write(root.join("file"), vec![7; 300_000]).unwrap();
    fs_err::hard_link(root.join("file"), root.join("other name")).unwrap();
    symlink("file", root.join("link")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    let xattr = rustix::fs::setxattr(root.join("file"), "user.why", b"tests", XattrFlags::CREATE);
    xattr.unwrap();
    fs_err::copy("/bin/true", root.join("program")).unwrap();
    let mode = std::fs::Permissions::from_mode(0o4751);
    fs_err::set_permissions(root.join("program"), mode).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    // A hole, a file of whole blocks, and one that ends a byte after them.
    let sparse = fs_err::File::create(root.join("sparse")).unwrap();
    sparse.set_len(5_000_000).unwrap();
    fs_err::write(root.join("blocks"), vec![1; 8192]).unwrap();
    fs_err::write(root.join("blocks and a byte"), vec![2; 8193]).unwrap();
    rustix::fs::chown(
        root.join("blocks"),
        Some(rustix::fs::Uid::from_raw(1234)),
        Some(rustix::fs::Gid::from_raw(5678)),
    )
    .unwrap();
}

/// All that `find` and `getfattr` tell of a tree.
fn told(root: &Path) -> String {
    let format = "%P %y %m %U %G %s %n %l %T@\n";
    let find = process::run(
        Command::new("find")
            .arg(root)
            // Of directories, sizes and links are the filesystem's own business.
            .args([
                "-type",
                "d",
                "-printf",
                "%P %y %m %U %G\n",
                "-o",
                "-printf",
                format,
            ]),
    );
    let mut lines: Vec<&str> = find.lines().collect();
    lines.sort_unstable();
    let xattrs = process::run(
        Command::new("getfattr")
            .current_dir(root)
            .args(["-R", "-P", "-h", "-d", "-m", "user", "."]),
    );
    format!("{}\n{xattrs}", lines.join("\n"))
}

fn content(transport: &'static str) {
    let Some(mut case) = Case::new(transport) else {
        return;
    };
    case.stage.start(&[]);
    case.mount();
    case.stage.assert_all_right();
    let rootfs = case.stage.scratch.dir("odd");
    odd_tree(&rootfs);
    let reference = case.push(&rootfs, "odd:1");
    let dir = case.stage.scratch.dir("odd-mnt");
    succeed(&case.mount_as(&reference, &dir));
    assert_eq!(told(&dir), told(&rootfs));
    process::run(
        Command::new("diff")
            .args(["-r", "--no-dereference", "--exclude=pipe"])
            .args([&rootfs, &dir]),
    );
    // Mapped, from a file that nobody has read yet in this mount.
    let map = "import mmap,sys; f=open(sys.argv[1],'rb'); g=open(sys.argv[2],'rb').read(); \
               m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ); sys.exit(m[:]!=g)";
    for file in ["file", "blocks and a byte", "sparse"] {
        process::run(
            Command::new("python3")
                .args(["-c", map])
                .args([dir.join(file), rootfs.join(file)]),
        );
    }
    process::run(&mut Command::new(dir.join("program")));
    assert_eq!(
        fs_err::metadata(dir.join("program")).unwrap().mode(),
        0o104_751
    );
    // It is what it is: nobody writes to it.
    let refused = fs_err::write(dir.join("new"), "x").unwrap_err();
    assert_eq!(
        refused.kind(),
        std::io::ErrorKind::ReadOnlyFilesystem,
        "{refused}"
    );
    // One that is in use is not unmounted; then it is, and leaves nothing.
    let open = fs_err::File::open(dir.join("file")).unwrap();
    let busy = case.stage.draught(&["umount", dir.to_str().unwrap()]);
    assert!(!busy.status.success());
    assert!(
        String::from_utf8_lossy(&busy.stderr).contains("in use"),
        "{busy:?}"
    );
    drop(open);
    succeed(&case.stage.draught(&["umount", dir.to_str().unwrap()]));
    assert_eq!(fs_err::read_dir(&dir).unwrap().count(), 0);
    succeed(&case.stage.umount());
    assert_eq!(case.stage.status()["mounts"].as_array().unwrap().len(), 0);
}

fn survives(transport: &'static str) {
    let Some(mut case) = Case::new(transport) else {
        return;
    };
    case.stage.start(&[]);
    case.mount();
    let keeper = case.stage.keeper();
    let reads = case.stage.read_during(READERS, || {
        let mut numbers = Numbers::new(11);
        for _ in 0..KILLS {
            eventually("a worker runs", || {
                !children(keeper, "draught-worker").is_empty()
            });
            std::thread::sleep(Duration::from_micros(numbers.below(60_000)));
            for worker in children(keeper, "draught-worker") {
                kill(worker);
            }
        }
    });
    assert!(reads > KILLS, "{reads} reads");
    need::say(&format!("{transport}: {KILLS} kills under {reads} reads"));
    // A keeper too, and an upgrade; then the mount is as good as new.
    let reads = case.stage.read_during(READERS, || {
        // Once it is known that it has a worker.
        assert_eq!(case.stage.keeper(), keeper);
        kill(keeper);
        eventually("another keeper serves", || {
            let output = case.stage.draught(&["ps", "--format", "json"]);
            let status = serde_json::from_slice::<serde_json::Value>(&output.stdout);
            let pid = status.ok().and_then(|status| status["keeper_pid"].as_u64());
            pid.is_some_and(|pid| pid != u64::from(keeper))
        });
        succeed(&case.stage.draught(&["daemon", "--upgrade"]));
    });
    assert!(reads > 0);
    case.stage.assert_all_right();
    let mounts = &case.stage.status()["mounts"];
    assert_eq!(mounts[0]["transport"], transport);
    succeed(&case.stage.umount());
}

fn errors_and_collection(transport: &'static str) {
    let Some(mut case) = Case::new(transport) else {
        return;
    };
    // A second image, which shares files with the first and has others.
    let other = case.stage.scratch.dir("other");
    let shared = case.stage.readable()[3].to_owned();
    fs_err::write(other.join("shared"), &case.stage.files[&shared]).unwrap();
    fs_err::write(other.join("own"), Numbers::new(77).bytes(3_000_000)).unwrap();
    let reference = case.push(&other, "other:1");
    case.stage.start(&["--read-deadline", "1s"]);
    case.mount();
    // While the registry is down, what is missing is an error, and what is there is not.
    assert!(case.stage.read(&shared).unwrap());
    let last = case.stage.readable().last().unwrap().to_string();
    case.stage.registry.proxy().go_down();
    let error = case.stage.read(&last).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "{error}");
    assert!(case.stage.read(&shared).unwrap());
    case.stage.registry.proxy().come_up();
    eventually("it can be read again", || {
        case.stage.read(&last).unwrap_or(false)
    });
    // Others come and go, and are collected, while it is read.
    let dir: PathBuf = case.stage.scratch.dir("other-mnt");
    let reads = case.stage.read_during(READERS, || {
        for _ in 0..5 {
            succeed(&case.mount_as(&reference, &dir));
            assert!(
                fs_err::read(dir.join("own")).unwrap() == fs_err::read(other.join("own")).unwrap()
            );
            assert!(fs_err::read(dir.join("shared")).unwrap() == case.stage.files[&shared]);
            succeed(&case.stage.draught(&["umount", dir.to_str().unwrap()]));
            succeed(&case.stage.draught(&["rm", &reference]));
            succeed(&case.stage.draught(&["gc"]));
        }
    });
    assert!(reads > 0);
    case.stage.assert_all_right();
    // When everything has come, it says so.
    succeed(&case.stage.umount());
    let dir = case.stage.mountpoint.to_str().unwrap().to_owned();
    let reference = case.stage.reference();
    let args = [
        "mount",
        "--prefetch",
        "all",
        "--transport",
        transport,
        &reference,
        &dir,
    ];
    succeed(&case.stage.draught(&args));
    eventually("it is lazy no more", || {
        let mounts = &case.stage.status()["mounts"];
        mounts[0]["lazy"] == false
    });
    case.stage.assert_all_right();
}

macro_rules! suite {
    ($transport:ident) => {
        mod $transport {
            #[test]
            fn shows_the_image_as_it_is_and_nobody_can_change_it() {
                super::content(stringify!($transport));
            }

            #[test]
            fn costs_no_reader_a_byte_or_an_error_when_processes_are_killed() {
                super::survives(stringify!($transport));
            }

            #[test]
            fn gives_errors_while_the_registry_is_down_and_right_bytes_while_others_are_collected()
            {
                super::errors_and_collection(stringify!($transport));
            }
        }
    };
}

suite!(fanotify);
suite!(fileio);
suite!(fuse);

/// An ordinary user.
const USER: u32 = 1000;

fn as_user(stage: &Stage, root: &Path, args: &[&str]) -> Command {
    let user = USER.to_string();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        // A copy: who has checked this out need not let others in.
        .arg(stage.scratch.join("draught"))
        .env("DRAUGHT_ROOT", root)
        .env("DRAUGHT_LOG", "info")
        .env("HOME", root)
        .env_remove("DOCKER_CONFIG")
        .env_remove("REGISTRY_AUTH_FILE")
        .current_dir(stage.scratch.path())
        .args(args);
    command
}

#[test]
fn an_ordinary_user_mounts_reads_and_unmounts_by_fuse() {
    let Some(stage) = Stage::new() else {
        return;
    };
    if need::tool("fusermount3").is_none() || need::tool("setpriv").is_none() {
        return;
    }
    let (root, dir) = (stage.scratch.dir("user"), stage.scratch.dir("user-mnt"));
    fs_err::copy(env!("CARGO_BIN_EXE_draught"), stage.scratch.join("draught")).unwrap();
    let all = std::fs::Permissions::from_mode(0o755);
    fs_err::set_permissions(stage.scratch.path(), all).unwrap();
    for path in [&root, &dir] {
        let (uid, gid) = (
            rustix::fs::Uid::from_raw(USER),
            rustix::fs::Gid::from_raw(USER),
        );
        rustix::fs::chown(path, Some(uid), Some(gid)).unwrap();
    }
    let run = |args: &[&str]| as_user(&stage, &root, args).output().unwrap();
    let said = succeed(&run(&["mount", &stage.reference(), dir.to_str().unwrap()]));
    assert!(said.contains("by fuse"), "{said}");
    let check = |name: &str| {
        let mut cat = Command::new("setpriv");
        cat.args([
            "--reuid",
            "1000",
            "--regid",
            "1000",
            "--clear-groups",
            "cat",
        ]);
        let output = cat.arg(dir.join(name)).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(output.stdout == stage.files[name], "{name} has other bytes");
    };
    let names = stage.readable();
    names.iter().take(20).for_each(|name| check(name));
    // Its worker dies like any other.
    let status = succeed(&run(&["ps", "--format", "json"]));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    kill(u32::try_from(status["worker_pid"].as_u64().unwrap()).unwrap());
    names.iter().skip(20).take(20).for_each(|name| check(name));
    let why = succeed(&run(&["probe"]));
    assert!(why.contains("mounts use: fuse"), "{why}");
    succeed(&run(&["umount", dir.to_str().unwrap()]));
    succeed(&run(&["daemon", "--stop"]));
    assert_eq!(fs_err::read_dir(&dir).unwrap().count(), 0);
}
