//! What the program does with its command line, before any work.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Output, Stdio};

fn draught(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_draught"))
        .args(args)
        .env_remove("DRAUGHT_ROOT")
        .env_remove("DRAUGHT_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn check(args: &[&str], code: i32, on_stderr: &str) {
    let output = draught(args);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert!(stderr.contains(on_stderr), "{args:?}: {stderr}");
    assert_eq!(
        text(&output.stdout),
        "",
        "{args:?}: words go to standard error"
    );
}

#[test]
fn wrong_usage_ends_with_2_and_says_why() {
    check(&[], 2, "Usage:");
    check(&["pour"], 2, "unrecognized subcommand 'pour'");
    check(&["registry", "--listn", "x"], 2, "--listen");
    check(&["--format", "yaml", "registry"], 2, "text, json");
}

#[test]
fn a_failure_ends_with_1_and_one_line_with_all_causes() {
    let output = draught(&[
        "--root",
        "/proc/nowhere",
        "registry",
        "--listen",
        "127.0.0.1:0",
    ]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.starts_with("draught: failed to open the registry in /proc/nowhere"),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn help_goes_to_standard_output_and_names_every_command() {
    let output = draught(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for word in [
        "registry",
        "--root",
        "--plain-http",
        "--format",
        "Exit codes:",
    ] {
        assert!(help.contains(word), "{word} is missing:\n{help}");
    }
    assert!(
        !help.contains("demo-inside"),
        "an internal command is shown:\n{help}"
    );
}

#[test]
fn a_bad_log_filter_is_refused() {
    check(&["--log", "loud=very", "registry"], 2, "--log <FILTER>");
}
