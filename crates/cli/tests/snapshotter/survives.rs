//! Containers go on, whatever dies.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::stage::{BASE, Form, MIDDLE, PATIENCE, Stage, archive};

fn image(stage: &Stage, name: &str) -> String {
    let base = archive(&stage.scratch, "base", BASE);
    let middle = archive(&stage.scratch, "middle", MIDDLE);
    stage.push(name, &[(Form::Lazy, &base), (Form::Lazy, &middle)])
}

fn kill(stage: &Stage, process: &str) {
    let pid = i32::try_from(stage.status()[process].as_i64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

fn wait_for_answer(stage: &Stage) {
    let deadline = Instant::now() + PATIENCE;
    while !stage.command(&["ps"]).output().unwrap().status.success() {
        assert!(Instant::now() < deadline, "{}", stage.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn containers_go_on_when_the_daemon_is_killed_and_upgraded() {
    let Some(stage) = Stage::new() else { return };
    let lazy = image(&stage, "survives:1");
    stage.pull(&lazy);
    let expected = fs_err::read(stage.scratch.join("base.d/data/unread")).unwrap();
    let expected = draught_digest::Digest::sha256(&expected).hex();
    let long = stage.run_long(&lazy);
    for (round, process) in ["worker_pid", "keeper_pid", "worker_pid"]
        .into_iter()
        .enumerate()
    {
        kill(&stage, process);
        // The container reads what nobody read yet, others start, while the daemon comes back.
        let exec = format!("e{round}");
        let seen = stage.exec(&long, &exec, &["/bin/sha256sum", "/data/unread"]);
        assert!(seen.starts_with(&expected), "{seen}");
        assert_eq!(
            stage.run(&lazy, &format!("new-{round}"), "cat /data/which"),
            "middle\n"
        );
        wait_for_answer(&stage);
    }
    stage.draught(&["daemon", "--upgrade"]);
    assert_eq!(stage.run(&lazy, "upgraded", "cat /data/which"), "middle\n");
    // Without the registry, what is pulled starts still.
    stage.registry.proxy().go_down();
    assert_eq!(stage.run(&lazy, "alone", "cat /data/which"), "middle\n");
    stage.registry.proxy().come_up();
    stage.end_long(&long);
}

/// Waits until something holds.
#[track_caller]
fn eventually(stage: &Stage, what: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !what() {
        assert!(Instant::now() < deadline, "{}", stage.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_state_directory_that_is_removed_under_the_daemon_stops_nobody() {
    let Some(stage) = Stage::new() else { return };
    let lazy = image(&stage, "lost:1");
    stage.pull(&lazy);
    let expected = fs_err::read(stage.scratch.join("base.d/data/unread")).unwrap();
    let expected = draught_digest::Digest::sha256(&expected).hex();
    let long = stage.run_long(&lazy);
    // Under another name, for what is mounted there can't be removed; to the daemon it is the same.
    fs_err::rename(stage.root(), stage.scratch.join("root.gone")).unwrap();
    assert_eq!(stage.run(&lazy, "new", "cat /data/which"), "middle\n");
    let seen = stage.exec(&long, "e", &["/bin/sha256sum", "/data/unread"]);
    assert!(seen.starts_with(&expected), "{seen}");
    eventually(&stage, || {
        stage.command(&["ps"]).output().unwrap().status.success()
    });
    // What is known now outlives the worker.
    kill(&stage, "worker_pid");
    wait_for_answer(&stage);
    assert_eq!(stage.run(&lazy, "newer", "cat /data/which"), "middle\n");
    let listed = stage.ctr(&["snapshots", "--snapshotter", "draught", "list"]);
    assert_eq!(
        listed
            .lines()
            .filter(|line| line.contains("Committed"))
            .count(),
        2,
        "{listed}"
    );
    stage.end_long(&long);
    // Where the daemon can't find it any more.
    for mount in draught_testkit::mounted::below(&stage.scratch.join("root.gone")) {
        rustix::mount::unmount(&mount.dir, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn snapshots_that_were_lost_are_brought_back_from_their_image() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let lazy = image(&stage, "lost:2");
    stage.pull(&lazy);
    stage.stop();
    fs_err::remove_dir_all(stage.root()).unwrap();
    // A registry that is gone stops no daemon.
    stage.registry.proxy().go_down();
    stage.start();
    let failed = stage.try_run(&lazy, "too-early", "true");
    assert!(!failed.status.success());
    stage.registry.proxy().come_up();
    eventually(&stage, || {
        let seen = stage.try_run(&lazy, "back", "cat /data/which");
        seen.stdout == b"middle\n"
    });
    assert!(stage.log().contains("brought back"), "{}", stage.log());
    // And the client can do with it what it could before.
    stage.ctr(&["images", "remove", "--sync", &lazy]);
    eventually(&stage, || {
        stage.status()["mounts"].as_array().unwrap().is_empty()
    });
    stage.pull(&lazy);
    assert_eq!(stage.run(&lazy, "again", "cat /data/which"), "middle\n");
}

#[test]
fn containers_go_on_when_containerd_is_killed() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let lazy = image(&stage, "restarts:1");
    stage.pull(&lazy);
    let expected = fs_err::read(stage.scratch.join("base.d/data/unread")).unwrap();
    let expected = draught_digest::Digest::sha256(&expected).hex();
    let long = stage.run_long(&lazy);
    stage.containerd.kill();
    kill(&stage, "worker_pid");
    stage.containerd.start_again();
    let seen = stage.exec(&long, "e", &["/bin/sha256sum", "/data/unread"]);
    assert!(seen.starts_with(&expected), "{seen}");
    assert_eq!(stage.run(&lazy, "new", "cat /data/which"), "middle\n");
    stage.end_long(&long);
    stage.ctr(&["images", "remove", "--sync", &lazy]);
    eventually(&stage, || {
        stage.status()["mounts"].as_array().unwrap().is_empty()
    });
}
