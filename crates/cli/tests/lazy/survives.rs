//! Readers see right bytes and no error, whoever is killed.

use std::time::Duration;

use draught_testkit::need;

use crate::harness::{Numbers, Stage, children, eventually, kill, succeed};

/// Times that the worker is killed.
const KILLS: u64 = 300;
/// Readers at once.
const READERS: u64 = 8;

#[test]
fn a_worker_killed_at_any_moment_costs_no_reader_a_byte_or_an_error() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    succeed(&stage.mount());
    let keeper = stage.keeper();
    let reads = stage.read_during(READERS, || {
        let mut numbers = Numbers::new(7);
        for _ in 0..KILLS {
            eventually("a worker runs", || {
                !children(keeper, "draught-worker").is_empty()
            });
            std::thread::sleep(Duration::from_micros(numbers.below(40_000)));
            for worker in children(keeper, "draught-worker") {
                kill(worker);
            }
        }
    });
    stage.assert_all_right();
    assert_eq!(stage.keeper(), keeper);
    need::say(&format!("{KILLS} kills under {reads} reads"));
    assert!(reads > KILLS, "{reads} reads");
}

#[test]
fn a_killed_keeper_is_replaced_by_its_worker_and_nobody_notices() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    succeed(&stage.mount());
    let first = stage.keeper();
    let reads = stage.read_during(READERS, || {
        for _ in 0..20 {
            let keeper = stage.keeper();
            kill(keeper);
            eventually("another keeper serves", || {
                let output = stage.draught(&["ps", "--format", "json"]);
                let status: serde_json::Value =
                    serde_json::from_slice(&output.stdout).unwrap_or_default();
                status["keeper_pid"]
                    .as_u64()
                    .is_some_and(|pid| pid != u64::from(keeper))
            });
            // Then its worker, so that the new pair is known to be whole.
            for worker in children(stage.keeper(), "draught-worker") {
                kill(worker);
            }
        }
    });
    assert_ne!(stage.keeper(), first);
    need::say(&format!("20 keepers killed under {reads} reads"));
    stage.assert_all_right();
}

#[test]
fn when_keeper_and_worker_both_die_their_mounts_give_errors_and_never_zeros() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    succeed(&stage.mount());
    let names = stage.readable();
    assert!(stage.read(names[0]).unwrap());
    // Somebody who keeps using the mount whatever happens.
    let open: Vec<_> = names
        .iter()
        .map(|file| fs_err::File::open(stage.path(file)).unwrap())
        .collect();
    let keeper = stage.keeper();
    let workers = children(keeper, "draught-worker");
    kill(keeper);
    workers.into_iter().for_each(kill);
    eventually("the mount is taken away", || !stage.path(names[0]).exists());
    let mut failed = 0;
    for (file, name) in open.iter().zip(&names) {
        use std::os::unix::fs::FileExt as _;
        let mut bytes = vec![0; stage.files[*name].len()];
        match file.file().read_exact_at(&mut bytes, 0) {
            Ok(()) => assert!(bytes == stage.files[*name], "{name} has wrong bytes"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(5), "{name}");
                failed += 1;
            }
        }
    }
    assert!(failed > 0, "everything was there already");
    // The next daemon says so, does not hand them out again, and serves new mounts right.
    stage.start(&[]);
    assert_eq!(stage.status()["mounts"].as_array().unwrap().len(), 0);
    assert!(
        stage.log().contains("lost keeper and worker"),
        "{}",
        stage.log()
    );
    succeed(&stage.mount());
    stage.assert_all_right();
    drop(open);
}

#[test]
fn an_upgrade_under_load_replaces_the_worker_and_costs_nobody_anything() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    succeed(&stage.mount());
    let keeper = stage.keeper();
    let other = stage.scratch.join("other-draught");
    fs_err::copy(env!("CARGO_BIN_EXE_draught"), &other).unwrap();
    let reads = stage.read_during(READERS, || {
        for _ in 0..20 {
            let before = stage.status()["worker_pid"].clone();
            let mut upgrade = std::process::Command::new(&other);
            upgrade
                .env("DRAUGHT_ROOT", stage.root())
                .args(["daemon", "--upgrade"]);
            succeed(&upgrade.output().unwrap());
            assert_ne!(stage.status()["worker_pid"], before);
        }
    });
    need::say(&format!("20 upgrades under {reads} reads"));
    assert_eq!(stage.keeper(), keeper);
    let worker = stage.status()["worker_pid"].as_u64().unwrap();
    let executable = fs_err::read_link(format!("/proc/{worker}/exe")).unwrap();
    assert_eq!(executable, other);
    stage.assert_all_right();
}

#[test]
fn a_stop_is_refused_while_a_mount_is_in_use_and_unmounts_when_it_is_not() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    succeed(&stage.mount());
    let names = stage.readable();
    let open = fs_err::File::open(stage.path(names[0])).unwrap();
    let refused = stage.draught(&["daemon", "--stop"]);
    assert!(!refused.status.success());
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        words.contains(stage.mountpoint.to_str().unwrap()) && words.contains("in use"),
        "{words}"
    );
    stage.assert_all_right();
    drop(open);
    succeed(&stage.draught(&["daemon", "--stop"]));
    assert!(!stage.path(names[0]).exists());
    assert!(!stage.draught(&["ps"]).status.success());
}

#[test]
fn a_mount_that_lives_on_in_another_namespace_is_served_until_it_is_gone() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    succeed(&stage.mount());
    let names = stage.readable();
    // A namespace with a copy of the mount: it waits for a line, then reads.
    let mut other = std::process::Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            "read line; cat \"$1\"",
            "sh",
        ])
        .arg(stage.path(names[0]))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = other.id();
    // Then its namespace is made and private.
    eventually("the shell runs", || {
        fs_err::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "sh")
    });
    succeed(&stage.umount());
    assert_eq!(stage.status()["mounts"][0]["detached"], true);
    assert!(!stage.draught(&["daemon", "--stop"]).status.success());
    let mut stdin = other.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"go\n").unwrap();
    drop(stdin);
    let output = other.wait_with_output().unwrap();
    assert!(
        output.stdout == stage.files[names[0]],
        "wrong bytes in the other namespace"
    );
    eventually("it is let go", || {
        stage.status()["mounts"].as_array().unwrap().is_empty()
    });
    succeed(&stage.draught(&["daemon", "--stop"]));
}
