//! `draught demo` from its first step to its last, on a small image, and what it leaves behind.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use draught_testkit::{Process, Scratch, mounted, need};
use rustix::process::Signal;
use serde_json::Value;

/// How long the demonstration of a small image may take on a busy machine.
const DEMO_MAX: Duration = Duration::from_secs(120);

fn demo(scratch: &Scratch) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_draught"));
    command.args([
        "--format",
        "json",
        "--progress",
        "none",
        "demo",
        "--size",
        "20MiB",
        "--scratch",
    ]);
    command.arg(scratch.path());
    command
}

/// Nothing is mounted there and nothing lies there but `left`.
#[track_caller]
fn assert_clean(scratch: &Scratch, left: &[&str]) {
    assert_eq!(
        mounted::below(scratch.path()).len(),
        0,
        "something is still mounted"
    );
    let entries = fs_err::read_dir(scratch.path()).unwrap();
    let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, left, "something is left behind");
}

#[test]
fn it_shows_that_lazy_reading_draws_less_and_leaves_nothing_behind() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    let output = demo(&scratch).stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr, "", "with --format json it tells no story");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let said = report["said"].as_str().unwrap();
    assert!(said.starts_with("hello from "), "{said}");
    assert_eq!(report["transport"], "fanotify");
    let drawn = |way: &str| report[way]["drawn_bytes"].as_u64().unwrap();
    assert!(drawn("lazy") < drawn("full") / 2, "{report}");
    assert_clean(&scratch, &[]);
}

#[test]
fn an_interrupt_at_any_moment_leaves_nothing_behind() {
    if !need::root() {
        return;
    }
    // From before the first file is chosen to the time when the program runs in the mount.
    for after_ms in [1, 300, 900, 1500, 2100, 2700] {
        let scratch = Scratch::new();
        let log = Scratch::new();
        let mut process = Process::start(&mut demo(&scratch), &log.join("log")).unwrap();
        let start = Instant::now();
        let moment = Duration::from_millis(after_ms);
        process
            .wait_until(DEMO_MAX, || start.elapsed() >= moment)
            .unwrap_or_default();
        // It may have been faster than we are: then it has left nothing either.
        process.signal(Signal::INT).unwrap_or_default();
        let start = Instant::now();
        while process.ended().unwrap().is_none() {
            assert!(
                start.elapsed() < DEMO_MAX,
                "it does not end: {}",
                process.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_clean(&scratch, &[]);
    }
}
