//! Servers that are really killed, and others that go on with their descriptor.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use draught_mount::fuse::{Session, Start};
use draught_testkit::{Scratch, need};
use rustix::io::FdFlags;

use crate::mirror::{Mirror, OnRead};
use crate::served::{Served, THREADS, cmp, drop_pages, write_file};

const CHILD: &str = "DRAUGHT_FUSE_TEST_CHILD";
const ROOT: &str = "DRAUGHT_FUSE_TEST_ROOT";
/// Files of the test that kills again and again.
const FILES: u8 = 100;

const DEVICE: &str = "DRAUGHT_FUSE_TEST_DEVICE";

/// What a server process does.
fn serve(what: &str) {
    let root = env::var_os(ROOT).unwrap();
    let root = Path::new(&root);
    let number = env::var(DEVICE).unwrap().parse().unwrap();
    let device = draught_sys::inherit::take(number).unwrap();
    let on_read: OnRead = match what {
        // Takes reads and never answers.
        "keep" | "keep-resumed" => Box::new(|path, _bytes, reply| {
            say(&format!("took {}", path.display()));
            std::mem::forget(reply);
        }),
        _ => Box::new(|_path, bytes, reply| reply.data(&bytes)),
    };
    let start = if what.ends_with("resumed") {
        Start::Resumed
    } else {
        Start::New
    };
    let mut mirror = Mirror::with(root, on_read);
    // Names and attributes are asked for again and again.
    mirror.is_final = false;
    let session = Session::start(device, Arc::new(mirror), start, THREADS).unwrap();
    say("serving");
    drop(session.wait());
}

/// One write per line, so that lines of threads don't mix; libtest leaves one unfinished.
fn say(words: &str) {
    let line = format!("\n{words}\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}

/// A server in a process of its own; killed when dropped.
struct Server {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Server {
    fn start(test: &str, what: &str, root: &Path, served: &Served) -> Self {
        // Inherited for the moment of starting; tests of one process start nothing else meanwhile.
        rustix::io::fcntl_setfd(&served.device, FdFlags::empty()).unwrap();
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", &format!("killed::{test}")])
            .args(["--nocapture", "--test-threads=1"])
            .env(CHILD, what)
            .env(ROOT, root)
            .env(DEVICE, served.device.as_raw_fd().to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        rustix::io::fcntl_setfd(&served.device, FdFlags::CLOEXEC).unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// Waits for a line that begins so.
    fn wait_for(&mut self, words: &str) {
        let mut line = String::new();
        while !line.starts_with(words) {
            line.clear();
            let len = self.said.read_line(&mut line).unwrap();
            assert!(len > 0, "the server ended before it said {words:?}");
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether this process is the server that a test started.
fn is_server() -> bool {
    let Ok(what) = env::var(CHILD) else {
        return false;
    };
    serve(&what);
    true
}

#[test]
fn the_next_server_answers_what_a_killed_one_took() {
    if is_server() || !need::root() {
        return;
    }
    let scratch = Scratch::new();
    for name in 0..4 {
        write_file(&scratch.join(format!("{name}")), 500_000, name);
    }
    let served = Served::mounted();
    let start = |what| {
        let test = "the_next_server_answers_what_a_killed_one_took";
        Server::start(test, what, scratch.path(), &served)
    };
    let mut server = start("keep");
    let mut readers: Vec<Child> = (0..4)
        .map(|name| {
            let name = format!("{name}");
            let mut command = cmp(&served.join(&name), &scratch.join(&name));
            command.spawn().unwrap()
        })
        .collect();
    // Killed twice before anything is answered: what was handed out again can be so once more.
    for next in ["keep-resumed", "resumed"] {
        for _ in 0..4 {
            server.wait_for("took ");
        }
        server.kill();
        for reader in &mut readers {
            assert!(reader.try_wait().unwrap().is_none(), "nobody answered it");
        }
        server = start(next);
    }
    for reader in &mut readers {
        assert!(reader.wait().unwrap().success());
    }
}

#[test]
fn readers_notice_nothing_of_servers_that_are_killed_again_and_again() {
    if is_server() || !need::root() {
        return;
    }
    let scratch = Scratch::new();
    for name in 0..FILES {
        write_file(
            &scratch.join(format!("{name}")),
            30_011 * (1 + usize::from(name % 7)),
            u64::from(name),
        );
    }
    let served = Served::mounted();
    let start = |what| {
        let test = "readers_notice_nothing_of_servers_that_are_killed_again_and_again";
        Server::start(test, what, scratch.path(), &served)
    };
    let mut server = start("new");
    let until = Instant::now() + Duration::from_secs(8);
    let mut readers: Vec<Child> = Vec::new();
    let mut kills = 0;
    while Instant::now() < until {
        if readers.is_empty() {
            readers.extend((0..4).map(|_| {
                let mut diff = Command::new("diff");
                diff.arg("-r").arg(scratch.path()).arg(&served.dir);
                diff.spawn().unwrap()
            }));
        }
        readers.retain_mut(|reader| {
            let ended = reader.try_wait().unwrap();
            assert!(ended.is_none_or(|status| status.success()), "{ended:?}");
            ended.is_none()
        });
        server.kill();
        server = start("resumed");
        server.wait_for("serving");
        kills += 1;
        // What is cached nobody asks for.
        for name in 0..FILES {
            drop_pages(&served.join(format!("{name}")));
        }
    }
    for reader in &mut readers {
        assert!(reader.wait().unwrap().success());
    }
    assert!(kills > 20, "{kills} kills");
}
