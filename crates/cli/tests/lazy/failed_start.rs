//! Programs and guards that do not do what they should.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use crate::harness::{Stage, children, eventually, kill, succeed};

#[test]
fn a_program_that_does_not_serve_is_given_up_for_the_one_before() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    succeed(&stage.mount());
    let bad = stage.scratch.join("bad-draught");
    fs_err::write(&bad, "no program at all").unwrap();
    for executable in ["/bin/true".as_ref(), bad.as_path()] {
        let before = stage.status()["worker_pid"].clone();
        let mut socket = UnixStream::connect(stage.root().join("draught.sock")).unwrap();
        let request = serde_json::json!({ "upgrade": { "executable": executable } });
        writeln!(socket, "{request}").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        // The worker that ends may answer once more; then whoever serves next does.
        eventually(&format!("another worker serves after {answer}"), || {
            stage.status()["worker_pid"] != before
        });
        stage.assert_all_right();
    }
    assert!(stage.log().contains("going on with the one before"));
}

#[test]
fn a_daemon_whose_worker_never_starts_ends_and_says_why() {
    let Some(stage) = Stage::new() else {
        return;
    };
    fs_err::create_dir_all(stage.root().join("store")).unwrap();
    fs_err::write(stage.root().join("store/version"), "of tomorrow").unwrap();
    let output = stage.mount();
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("of tomorrow"), "{words}");
    assert!(!stage.draught(&["ps"]).status.success());
}

#[test]
fn a_guard_that_is_killed_is_replaced_and_guards() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    stage.start(&[]);
    succeed(&stage.mount());
    let keeper = stage.keeper();
    let first = children(keeper, "draught-guard");
    assert_eq!(first.len(), 1);
    kill(first[0]);
    eventually("there is another guard", || {
        let guards = children(keeper, "draught-guard");
        guards.len() == 1 && guards != first
    });
    // The new guard must not take a keeper's death alone for the end of both.
    kill(keeper);
    eventually("another keeper serves", || {
        let output = stage.draught(&["ps", "--format", "json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["keeper_pid"]
            .as_u64()
            .is_some_and(|pid| pid != u64::from(keeper))
    });
    // One file only: who goes through all of them is read ahead for.
    assert!(stage.read(stage.readable()[0]).unwrap());
    let unread = fs_err::File::open(stage.path(crate::harness::UNREAD)).unwrap();
    let keeper = stage.keeper();
    let workers = children(keeper, "draught-worker");
    kill(keeper);
    workers.into_iter().for_each(kill);
    eventually("the mount is taken away", || {
        !stage.path(crate::harness::UNREAD).exists()
    });
    let mut bytes = Vec::new();
    let error = unread.into_parts().0.read_to_end(&mut bytes).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5));
}
