//! Containers go on, whatever dies.

use rustix::process::{Pid, Signal, kill_process};

use crate::stage::Stage;

fn kill(stage: &Stage, process: &str) {
    let pid = i32::try_from(stage.status()[process].as_i64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

fn wait_for_answer(stage: &Stage) {
    stage.eventually(|| stage.command(&["ps"]).output().unwrap().status.success());
}

#[test]
fn containers_go_on_when_the_daemon_is_killed_and_upgraded() {
    let Some(stage) = Stage::new() else { return };
    let lazy = stage.push_large("survives:1");
    stage.pull(&lazy);
    let long = stage.run_long(&lazy);
    for (round, process) in ["worker_pid", "keeper_pid", "worker_pid"]
        .into_iter()
        .enumerate()
    {
        kill(&stage, process);
        // The container reads what nobody read yet, others start, while the daemon comes back.
        let exec = format!("e{round}");
        stage.assert_read(round, |command| stage.exec(&long, &exec, command));
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
    // One of the files that nobody reads was never fetched, so all of this was on demand.
    let mount = stage.mount_of(&lazy);
    let missing = mount["bytes_total"].as_u64().unwrap() - mount["bytes_present"].as_u64().unwrap();
    assert!(
        missing > 15_000_000 && mount["prefetch_all"] == false,
        "{mount}"
    );
    stage.end_long(&long);
}

#[test]
fn a_state_directory_that_is_removed_under_the_daemon_stops_nobody() {
    let Some(stage) = Stage::new() else { return };
    let lazy = stage.push_large("lost:1");
    stage.pull(&lazy);
    let long = stage.run_long(&lazy);
    // Under another name, for what is mounted there can't be removed; to the daemon it is the same.
    fs_err::rename(stage.root(), stage.scratch.join("root.gone")).unwrap();
    assert_eq!(stage.run(&lazy, "new", "cat /data/which"), "middle\n");
    stage.assert_read(0, |command| stage.exec(&long, "e", command));
    wait_for_answer(&stage);
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
        3,
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
    let lazy = stage.push_large("lost:2");
    stage.pull(&lazy);
    stage.stop();
    fs_err::remove_dir_all(stage.root()).unwrap();
    // A registry that is gone stops no daemon.
    stage.registry.proxy().go_down();
    stage.start();
    let failed = stage.try_run(&lazy, "too-early", "true");
    assert!(!failed.status.success());
    stage.registry.proxy().come_up();
    stage.eventually(|| {
        let seen = stage.try_run(&lazy, "back", "cat /data/which");
        seen.stdout == b"middle\n"
    });
    assert!(stage.log().contains("brought back"), "{}", stage.log());
    // And the client can do with it what it could before.
    stage.ctr(&["images", "remove", "--sync", &lazy]);
    stage.eventually(|| stage.status()["mounts"].as_array().unwrap().is_empty());
    stage.pull(&lazy);
    assert_eq!(stage.run(&lazy, "again", "cat /data/which"), "middle\n");
}

#[test]
fn containers_go_on_when_containerd_is_killed() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let lazy = stage.push_large("restarts:1");
    stage.pull(&lazy);
    let long = stage.run_long(&lazy);
    stage.containerd.kill();
    kill(&stage, "worker_pid");
    stage.containerd.start_again();
    stage.assert_read(0, |command| stage.exec(&long, "e", command));
    assert_eq!(stage.run(&lazy, "new", "cat /data/which"), "middle\n");
    stage.end_long(&long);
    stage.ctr(&["images", "remove", "--sync", &lazy]);
    stage.eventually(|| stage.status()["mounts"].as_array().unwrap().is_empty());
}
