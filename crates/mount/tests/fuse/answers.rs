//! Reads that are answered late, wrongly or not at all.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use draught_mount::fuse::ReadReply;
use draught_testkit::{Scratch, need};
use rustix::io::Errno;

use crate::mirror::{Mirror, OnRead};
use crate::served::{PATIENCE, Served, assert_success, cmp, output, read_errno, write_file};

const BYTES: usize = 300_000;

/// Serves one file, with reads as the test wants them.
fn served(on_read: OnRead) -> (Served, Scratch) {
    let scratch = Scratch::new();
    write_file(&scratch.join("file"), BYTES, 3);
    write_file(&scratch.join("good"), BYTES, 4);
    let mirror = Mirror::with(scratch.path(), on_read);
    (Served::start(Arc::new(mirror)), scratch)
}

/// Reads are kept for the test instead of being answered.
fn kept() -> (Served, Scratch, Receiver<(Vec<u8>, ReadReply)>) {
    let (sender, receiver) = channel();
    let on_read: OnRead = Box::new(move |_path, bytes, reply| {
        sender.send((bytes, reply)).unwrap();
    });
    let (served, scratch) = served(on_read);
    (served, scratch, receiver)
}

#[test]
fn another_thread_may_answer_later() {
    if !need::root() {
        return;
    }
    let (served, scratch, reads) = kept();
    let mut compare = cmp(&served.join("file"), &scratch.join("file"));
    let mut reader = compare.spawn().unwrap();
    let mut got = 0;
    let mut last = None;
    while got < BYTES {
        let (bytes, reply) = reads.recv_timeout(PATIENCE).unwrap();
        got += bytes.len();
        // Always one behind, and out of order for who reads ahead.
        if let Some((bytes, reply)) = last.replace((bytes, reply)) {
            let (bytes, reply): (Vec<u8>, ReadReply) = (bytes, reply);
            reply.data(&bytes);
        } else {
            let (bytes, reply) = last.take().unwrap();
            reply.data(&bytes);
        }
    }
    if let Some((bytes, reply)) = last {
        reply.data(&bytes);
    }
    assert!(reader.wait().unwrap().success());
}

/// That reading the file fails with this errno, and another file is fine.
#[track_caller]
fn check(expect: Errno, bad: impl Fn(Vec<u8>, ReadReply) + Send + Sync + 'static) {
    if !need::root() {
        return;
    }
    let on_read: OnRead = Box::new(move |path, bytes, reply| {
        if path == Path::new("file") {
            bad(bytes, reply);
        } else {
            reply.data(&bytes);
        }
    });
    let (served, scratch) = served(on_read);
    for _ in 0..2 {
        assert_eq!(read_errno(&served.join("file")), Err(expect));
    }
    let good = cmp(&served.join("good"), &scratch.join("good"))
        .stdin(Stdio::null())
        .output();
    assert_success(&good.unwrap());
}

#[test]
fn an_error_reaches_the_reader() {
    check(Errno::IO, |_bytes, reply| {
        reply.fail(&io::Error::other("nothing there"));
    });
    check(Errno::NOSPC, |_bytes, reply| {
        reply.fail(&Errno::NOSPC.into());
    });
}

#[test]
fn a_read_that_nobody_answers_is_an_error() {
    check(Errno::IO, |_bytes, reply| drop(reply));
}

#[test]
fn an_answer_of_another_length_is_an_error_and_never_zeros() {
    check(Errno::IO, |bytes, reply| reply.data(&bytes[1..]));
    check(Errno::IO, |bytes, reply| {
        reply.data(&[&bytes[..], b"x"].concat())
    });
    check(Errno::IO, |_bytes, reply| reply.data(b""));
}

#[test]
fn a_bug_in_serving_costs_one_read() {
    check(Errno::IO, |_bytes, _reply| panic!("a bug"));
}

#[test]
fn a_reader_that_is_killed_goes_at_once() {
    if !need::root() {
        return;
    }
    let (served, scratch, reads) = kept();
    let mut compare = cmp(&served.join("file"), &scratch.join("file"));
    let mut reader = compare.spawn().unwrap();
    let first = reads.recv_timeout(PATIENCE).unwrap();
    reader.kill().unwrap();
    // Would wait for ever if it had to wait for the answer.
    reader.wait().unwrap();
    // The answer that nobody waits for any more is fine, and the next reader gets it from the cache.
    first.1.data(&first.0);
    while let Ok((bytes, reply)) = reads.try_recv() {
        reply.data(&bytes);
    }
    let mut compare = cmp(&served.join("file"), &scratch.join("file"));
    compare.arg("--bytes=4096");
    assert_success(&output(&mut compare));
}

#[test]
fn a_signal_is_no_error_for_who_waits() {
    if !need::root() {
        return;
    }
    let Some(python) = need::tool("python3") else {
        return;
    };
    let (served, _scratch, reads) = kept();
    // The handler runs, and the read that it interrupted goes on or never noticed.
    let script = "import os,signal,sys
def handler(*_): print('alarm', flush=True)
signal.signal(signal.SIGALRM, handler); signal.siginterrupt(signal.SIGALRM, True)
signal.setitimer(signal.ITIMER_REAL, 0.2)
f = os.open(sys.argv[1], os.O_RDONLY)
print(len(os.read(f, 4096)))";
    let mut reader = Command::new(python)
        .args(["-c", script])
        .arg(served.join("file"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let first = reads.recv_timeout(PATIENCE).unwrap();
    // Nothing tells when the signal has come: it is to come long before this.
    let more = reads.recv_timeout(Duration::from_millis(600));
    for (bytes, reply) in [Ok(first), more].into_iter().flatten() {
        reply.data(&bytes);
    }
    while reader.try_wait().unwrap().is_none() {
        if let Ok((bytes, reply)) = reads.recv_timeout(Duration::from_millis(10)) {
            reply.data(&bytes);
        }
    }
    let output = reader.wait_with_output().unwrap();
    assert_success(&output);
    assert_eq!(output.stdout, b"alarm\n4096\n");
}
