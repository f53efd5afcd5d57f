//! Registries that fail, in every way that they do: an error or right bytes, never wrong ones, and all
//! is well again without a restart once they are.

use std::io;
use std::time::Duration;

use draught_testkit::fault_proxy::{Auth, Fault, Rule};
use draught_testkit::need;

use crate::harness::{Stage, eventually, succeed};

/// How long reads are tried for in these tests.
const DEADLINE: &str = "1500ms";

fn stage() -> Option<Stage> {
    let mut stage = Stage::new()?;
    stage.start(&["--read-deadline", DEADLINE]);
    succeed(&stage.mount());
    Some(stage)
}

fn assert_eio(result: io::Result<bool>, when: &str) {
    match result {
        Err(error) => assert_eq!(error.raw_os_error(), Some(5), "{when}: {error}"),
        Ok(right) => panic!("{when}: read without an error, right: {right}"),
    }
}

#[test]
fn a_source_that_fails_costs_an_error_at_the_deadline_and_heals_by_itself() {
    let Some(stage) = stage() else { return };
    let proxy = stage.registry.proxy();
    // Backwards and far apart, so that nobody takes it for a reader who goes through everything.
    let mut files = stage.readable().into_iter().rev().step_by(9);
    for fault in [
        Fault::Status(500),
        Fault::Status(404),
        Fault::Status(403),
        Fault::Status(401),
        Fault::RetryAfter(503, 1),
        Fault::RetryAfter(429, 1),
        Fault::Reset,
        Fault::ResetAfter(10),
        Fault::TruncateAfter(10),
        Fault::ShortenTo(10),
        Fault::StallAfter(10),
        Fault::Hang,
    ] {
        let file = files.next().unwrap();
        let when = format!("{fault:?}");
        let rule = proxy.inject(Rule::new(fault).on_blobs());
        assert_eio(stage.read(file), &when);
        assert!(proxy.hits(rule) > 0, "{when}: nobody asked");
        proxy.lift(rule);
        eventually(&format!("{when} heals"), || stage.read(file).is_ok());
        assert!(stage.read(file).unwrap(), "{when}: wrong bytes");
    }
}

#[test]
fn a_registry_that_is_down_costs_an_error_and_what_is_present_stays_readable() {
    let Some(stage) = stage() else { return };
    let names = stage.readable();
    assert!(stage.read(names[0]).unwrap());
    stage.registry.proxy().go_down();
    assert!(stage.read(names[0]).unwrap());
    assert_eio(stage.read(names[1]), "down");
    stage.registry.proxy().come_up();
    eventually("the registry is asked again", || {
        stage.read(names[1]).is_ok()
    });
    stage.assert_all_right();
}

#[test]
fn faults_that_pass_cost_no_error_at_all() {
    let Some(stage) = stage() else { return };
    let proxy = stage.registry.proxy();
    let mut files = stage.readable().into_iter();
    for fault in [
        Fault::Status(500),
        Fault::Status(404),
        Fault::Reset,
        Fault::ResetAfter(10),
        Fault::TruncateAfter(10),
        Fault::FlipByte(0),
    ] {
        let file = files.next().unwrap();
        let when = format!("{fault:?}");
        let rule = proxy.inject(Rule::new(fault).on_blobs().times(2));
        assert!(
            stage
                .read(file)
                .unwrap_or_else(|error| panic!("{when}: {error}")),
            "{when}"
        );
        proxy.lift(rule);
    }
    for (fault, when) in [
        (Fault::Delay(Duration::from_millis(200)), "slow"),
        (Fault::Bandwidth(1 << 20), "narrow"),
        (Fault::Redirect, "redirected"),
    ] {
        let rule = proxy.inject(Rule::new(fault).on_blobs());
        for file in files.by_ref().take(3) {
            assert!(stage.read(file).unwrap(), "{when}");
        }
        proxy.lift(rule);
    }
}

#[test]
fn a_registry_that_ignores_ranges_never_gives_wrong_bytes() {
    let Some(stage) = stage() else { return };
    let rule = stage
        .registry
        .proxy()
        .inject(Rule::new(Fault::IgnoreRange).on_blobs());
    let mut right = 0;
    for file in stage.readable() {
        match stage.read(file) {
            Ok(same) => {
                assert!(same, "{file}");
                right += 1;
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(5), "{file}"),
        }
    }
    need::say(&format!("{right} files in spite of ignored ranges"));
    assert!(right > 0);
    stage.registry.proxy().lift(rule);
    let names = stage.readable();
    eventually("ranges are asked for again", || {
        stage.read(names[names.len() - 1]).is_ok()
    });
    stage.assert_all_right();
}

#[test]
fn a_flipped_byte_is_an_error_named_once_in_the_log_and_works_once_repaired() {
    let Some(stage) = stage() else { return };
    let names = stage.readable();
    let (blob, position) = stage.data_blob();
    let path = stage.registry.blob_file(&blob);
    let sound = fs_err::read(&path).unwrap();
    let mut bent = sound.clone();
    bent[position] ^= 0x40;
    fs_err::write(&path, &bent).unwrap();
    let (mut wrong, mut right) = (Vec::new(), 0);
    for file in &names {
        match stage.read(file) {
            Ok(same) => {
                assert!(same, "{file} has wrong bytes");
                right += 1;
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(5));
                wrong.push(*file);
            }
        }
    }
    assert_eq!(wrong.len(), 1, "{right} right, {wrong:?} not");
    let log = stage.log();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("is not shown"))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    for part in [&blob.to_string(), "bytes ", "blake3:"] {
        assert!(lines[0].contains(part), "{part} is not in {}", lines[0]);
    }
    let status = stage.status();
    let error = status["mounts"][0]["last_error"].as_str().unwrap();
    assert!(error.contains(&blob.to_string()), "{error}");
    fs_err::write(&path, &sound).unwrap();
    eventually("the repaired chunk is read", || {
        stage.read(wrong[0]).is_ok()
    });
    stage.assert_all_right();
}

#[test]
fn tokens_that_expire_while_the_image_is_lazy_are_renewed() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let user = ("ann".to_owned(), "pass:word".to_owned());
    let lifetime = Duration::from_secs(300);
    let auth = Auth {
        user: Some(user),
        lifetime,
    };
    stage.registry.proxy().require_tokens(Some(auth));
    stage.log_in("ann", "pass:word");
    stage.start(&["--read-deadline", DEADLINE]);
    succeed(&stage.mount());
    for (index, file) in stage.readable().into_iter().enumerate() {
        if index % 5 == 0 {
            stage.registry.proxy().expire_tokens();
        }
        assert!(stage.read(file).unwrap(), "{file}");
    }
    assert!(stage.registry.proxy().tokens_issued() > 3);
    // No secret anywhere that outlives the process, nor in what it said.
    let kept = succeed(
        &std::process::Command::new("grep")
            .args(["-rcl", "pass:word"])
            .arg(stage.root())
            .output()
            .map(|mut output| {
                // grep says 1 when it finds nothing.
                if output.status.code() == Some(1) {
                    output.status = Default::default();
                }
                output
            })
            .unwrap(),
    );
    assert_eq!(kept, "");
    assert!(!stage.log().contains("pass:word"));
}
