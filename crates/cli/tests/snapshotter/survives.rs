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
    stage.ctr(&[
        "run",
        "--detach",
        "--snapshotter",
        "draught",
        &lazy,
        "long",
        "/bin/sleep",
        "1000",
    ]);
    for (round, process) in ["worker_pid", "keeper_pid", "worker_pid"]
        .into_iter()
        .enumerate()
    {
        kill(&stage, process);
        // The container reads what nobody read yet, others start, while the daemon comes back.
        let exec = format!("e{round}");
        let seen = stage.ctr(&[
            "tasks",
            "exec",
            "--exec-id",
            &exec,
            "long",
            "/bin/sha256sum",
            "/data/unread",
        ]);
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
    stage.ctr(&["tasks", "kill", "--signal", "KILL", "long"]);
    stage.ctr(&["tasks", "delete", "--force", "long"]);
    stage.ctr(&["containers", "delete", "long"]);
}
