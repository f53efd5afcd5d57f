//! Mounts of an ordinary user.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use draught_mount::fuse::{
    End, FuseError, FuseOptions, Session, Start, fuse_ability, mount, unmount,
};
use draught_testkit::{Scratch, need};
use rustix::fs::{FileType, Mode};

use crate::mirror::Mirror;
use crate::served::{PATIENCE, assert_success, cmp, output, write_file};

const DIR: &str = "DRAUGHT_FUSE_TEST_DIR";

/// Runs this test again as an ordinary user who owns a directory; whether this is that process.
fn as_user(test: &str, prepare: impl Fn(&Path), work: impl Fn(&Path)) {
    if let Some(dir) = env::var_os(DIR) {
        return work(Path::new(&dir));
    }
    if !need::root() {
        return;
    }
    let tools = ["setpriv", "unshare", "fusermount3"].map(need::tool);
    let [Some(setpriv), Some(unshare), Some(_)] = tools else {
        return;
    };
    // In a place where an ordinary user can reach it.
    let scratch = Scratch::new();
    let dir = scratch.dir("own");
    let program = scratch.join("program");
    fs_err::copy(env::current_exe().unwrap(), &program).unwrap();
    for path in [scratch.path(), &dir, &program] {
        fs_err::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    prepare(&dir);
    std::os::unix::fs::chown(&dir, Some(1000), Some(1000)).unwrap();
    // As udev makes it, in a mount namespace of its own: not every machine lets users open /dev/fuse.
    let node = scratch.join("fuse");
    let (mode, device) = (Mode::from_raw_mode(0o666), rustix::fs::makedev(10, 229));
    let kind = FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, &node, kind, mode, device).unwrap();
    fs_err::set_permissions(&node, PermissionsExt::from_mode(0o666)).unwrap();
    let script = "mount --bind \"$1\" /dev/fuse && shift && exec \"$@\"";
    let mut command = Command::new(unshare);
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(&node)
        .arg(setpriv)
        .args(["--reuid", "1000", "--regid", "1000", "--clear-groups"])
        .arg(program)
        .args(["--exact", &format!("user::{test}")])
        .args(["--nocapture", "--test-threads=1"])
        .env(DIR, &dir);
    let output = output(&mut command);
    assert_success(&output);
    let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(ran, "{output:?}");
}

#[test]
fn an_ordinary_user_mounts_serves_and_unmounts() {
    let prepare = |dir: &Path| {
        for name in ["content", "mounted"] {
            fs_err::create_dir(dir.join(name)).unwrap();
            std::os::unix::fs::chown(dir.join(name), Some(1000), Some(1000)).unwrap();
        }
        write_file(&dir.join("content/file"), 3_000_000, 1);
    };
    as_user(
        "an_ordinary_user_mounts_serves_and_unmounts",
        prepare,
        |dir| {
            let (content, mounted) = (dir.join("content"), dir.join("mounted"));
            let device = mount(&mounted, &FuseOptions::default()).unwrap();
            let files = Arc::new(Mirror::of(&content));
            let session = Session::start(device, files, Start::New, 2).unwrap();
            let mut compare = cmp(&mounted.join("file"), &content.join("file"));
            assert_success(&output(&mut compare));
            unmount(&mounted, false).unwrap();
            let end = session.wait_for(PATIENCE);
            assert!(matches!(end, Some(End::Unmounted)), "{end:?}");
        },
    );
}

#[test]
fn what_fusermount_says_is_in_the_error() {
    let prepare = |dir: &Path| {
        // Belongs to root.
        fs_err::create_dir(dir.join("foreign")).unwrap();
        fs_err::set_permissions(dir.join("foreign"), PermissionsExt::from_mode(0o755)).unwrap();
    };
    as_user("what_fusermount_says_is_in_the_error", prepare, |dir| {
        let error = mount(&dir.join("foreign"), &FuseOptions::default()).unwrap_err();
        let words = error.to_string();
        assert!(
            matches!(error, FuseError::HelperRefused { .. }),
            "{error:?}"
        );
        assert!(words.contains("no write access"), "{words}");
        let error = unmount(&dir.join("foreign"), true).unwrap_err();
        assert!(
            matches!(error, FuseError::HelperRefused { .. }),
            "{error:?}"
        );
    });
}

#[test]
fn the_probe_works_for_an_ordinary_user() {
    as_user(
        "the_probe_works_for_an_ordinary_user",
        |_| (),
        |dir| {
            let ability = fuse_ability(dir);
            assert!(ability.usable, "{}", ability.why);
            assert_eq!(fs_err::read_dir(dir).unwrap().count(), 0);
        },
    );
}
