//! A service manager keeps descriptors: mounts survive when keeper and worker are both killed, and their guard too.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use draught_sys::scm;
use draught_testkit::{Process, need};
use parking_lot::Mutex;
use rustix::process::Signal;

use crate::harness::{Stage, children, eventually, kill, succeed};

/// Numbers at which a service's descriptors wait until it is started.
const ASIDE: i32 = 600;
/// The first number that a service finds them at.
const FIRST: i32 = 3;

/// What a service manager keeps and was told.
#[derive(Default)]
struct Kept {
    descriptors: BTreeMap<String, OwnedFd>,
    told: Vec<String>,
}

/// What systemd does with notifications.
struct Manager {
    path: PathBuf,
    kept: Arc<Mutex<Kept>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Manager {
    fn new(stage: &mut Stage) -> Self {
        let path = stage.scratch.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let kept = Arc::new(Mutex::new(Kept::default()));
        let ends = Arc::new(AtomicBool::new(false));
        let (for_thread, its_end) = (Arc::clone(&kept), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !its_end.load(Ordering::Relaxed) {
                // A time-out, mostly.
                if let Ok((len, descriptors)) = scm::receive(socket.as_fd(), &mut buffer) {
                    let message = String::from_utf8(buffer[..len].to_vec()).unwrap();
                    for_thread.lock().take(&message, descriptors);
                }
            }
        });
        let value = path.to_str().unwrap().to_owned();
        stage.environment.push(("NOTIFY_SOCKET".to_owned(), value));
        Self {
            path,
            kept,
            ends,
            thread: Some(thread),
        }
    }

    /// Starts the service with what is kept for it, as systemd does.
    fn start(&self, stage: &Stage, name: &str) -> Process {
        let kept = self.kept.lock();
        let names: Vec<&str> = kept.descriptors.keys().map(String::as_str).collect();
        let mut moves = String::new();
        let mut aside = Vec::new();
        for (index, fd) in (0..).zip(kept.descriptors.values()) {
            let copy = rustix::io::fcntl_dupfd_cloexec(fd, ASIDE).unwrap();
            rustix::io::fcntl_setfd(&copy, rustix::io::FdFlags::empty()).unwrap();
            let number = copy.as_raw_fd();
            moves.push_str(&format!(" {}<&{number} {number}<&-", FIRST + index));
            aside.push(copy);
        }
        let script = format!(
            "exec{moves}; export LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={}; exec \"$@\"",
            names.len(),
            names.join(":")
        );
        let daemon = stage.command(&["daemon"]);
        let mut command = Command::new("bash");
        command
            .args(["-c", &script, "bash"])
            .arg(daemon.get_program());
        command.args(daemon.get_args());
        let environment = daemon.get_envs();
        let environment = environment.filter_map(|(name, value)| Some((name, value?)));
        command.envs(environment);
        Process::start(&mut command, &stage.scratch.join(name)).unwrap()
    }

    fn was_told(&self, line: &str) -> bool {
        let kept = self.kept.lock();
        let mut lines = kept.told.iter().flat_map(|told| told.lines());
        lines.any(|told| told == line)
    }

    fn forget_what_was_told(&self) {
        self.kept.lock().told.clear();
    }

    fn names(&self) -> Vec<String> {
        self.kept.lock().descriptors.keys().cloned().collect()
    }
}

impl Kept {
    fn take(&mut self, message: &str, descriptors: Vec<OwnedFd>) {
        let value = |name: &str| {
            let mut lines = message.lines().filter_map(|line| line.split_once('='));
            lines.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let name = value("FDNAME").unwrap_or("stored").to_owned();
        if value("FDSTOREREMOVE") == Some("1") {
            self.descriptors.remove(&name);
        } else if value("FDSTORE") == Some("1") {
            // One that is there already is not taken twice.
            let fd = descriptors.into_iter().next().unwrap();
            self.descriptors.entry(name).or_insert(fd);
        }
        self.told.push(message.to_owned());
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
        drop(fs_err::remove_file(&self.path));
    }
}

fn answers(stage: &Stage) -> bool {
    stage.draught(&["ps"]).status.success()
}

fn mount(stage: &Stage, transport: &str) {
    let mountpoint = stage.mountpoint.to_str().unwrap();
    succeed(&stage.draught(&[
        "mount",
        "--transport",
        transport,
        &stage.reference(),
        mountpoint,
    ]));
}

/// Kills all that there is of a daemon, at once or nearly so.
fn kill_all(stage: &Stage, with_guard: bool) {
    let keeper = stage.keeper();
    let mut pids = vec![keeper];
    pids.extend(children(keeper, "draught-worker"));
    if with_guard {
        pids.extend(children(keeper, "draught-guard"));
    }
    pids.into_iter().for_each(kill);
}

#[track_caller]
fn both_die(transport: &str, with_guard: bool) {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let manager = Manager::new(&mut stage);
    let daemons = Mutex::new(vec![manager.start(&stage, "daemon-0.log")]);
    eventually("it serves", || answers(&stage));
    eventually("it says so", || manager.was_told("READY=1"));
    assert!(manager.was_told(&format!("MAINPID={}", stage.keeper())));
    mount(&stage, transport);
    let reads = stage.read_during(4, || {
        for round in 1..=5 {
            std::thread::sleep(Duration::from_millis(30));
            manager.forget_what_was_told();
            kill_all(&stage, with_guard);
            // Readers wait in the meantime.
            std::thread::sleep(Duration::from_millis(50));
            let daemon = manager.start(&stage, &format!("daemon-{round}.log"));
            let pid = daemon.id();
            daemons.lock().push(daemon);
            eventually("the next one serves", || answers(&stage));
            assert_eq!(stage.keeper(), pid);
            eventually("it says so", || manager.was_told(&format!("MAINPID={pid}")));
        }
    });
    need::say(&format!(
        "{transport}: 5 times all were killed under {reads} reads"
    ));
    stage.assert_all_right();
    let log = daemons.lock().last().unwrap().log();
    assert!(
        log.contains("going on with what the service manager kept"),
        "{log}"
    );
    assert_eq!(
        stage.status()["mounts"][0]["last_error"],
        serde_json::Value::Null
    );
    // In order, nothing is left with the manager.
    succeed(&stage.umount());
    succeed(&stage.draught(&["daemon", "--stop"]));
    eventually("nothing is kept", || manager.names().is_empty());
    assert!(manager.was_told("STOPPING=1"));
}

#[test]
fn keeper_and_worker_killed_cost_no_reader_anything() {
    both_die("fanotify", false);
}

#[test]
fn keeper_worker_and_guard_killed_cost_no_reader_anything() {
    both_die("fanotify", true);
}

#[test]
fn sessions_over_devices_survive_keeper_and_worker() {
    both_die("fileio", true);
}

#[test]
fn sessions_of_files_survive_keeper_and_worker() {
    both_die("fuse", true);
}

#[test]
fn a_manager_that_gives_up_leaves_errors_and_never_zeros() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let manager = Manager::new(&mut stage);
    let _daemon = manager.start(&stage, "daemon.log");
    eventually("it serves", || answers(&stage));
    mount(&stage, "fanotify");
    let names = stage.readable();
    let open: Vec<_> = names
        .iter()
        .map(|file| fs_err::File::open(stage.path(file)).unwrap())
        .collect();
    kill_all(&stage, false);
    std::thread::sleep(Duration::from_millis(300));
    assert!(stage.path(names[0]).exists(), "the guard did not wait");
    manager.kept.lock().descriptors.clear();
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
}

#[test]
fn a_service_that_is_stopped_while_containers_run_leaves_its_worker_and_takes_it_up_again() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let manager = Manager::new(&mut stage);
    let mut first = manager.start(&stage, "first.log");
    eventually("it serves", || answers(&stage));
    mount(&stage, "fanotify");
    let names = stage.readable();
    let open = fs_err::File::open(stage.path(names[0])).unwrap();
    let reads = stage.read_during(4, || {
        // systemctl stop: it does not take the mounts with it, nor does it take for ever.
        first.signal(Signal::TERM).unwrap();
        eventually("the keeper is gone", || {
            !PathBuf::from(format!("/proc/{}/exe", first.id())).exists()
        });
        manager.kept.lock().descriptors.clear();
        eventually("the worker is the keeper", || answers(&stage));
    });
    assert!(first.ended().unwrap().unwrap().success(), "{}", first.log());
    assert!(reads > 0);
    let keeper = stage.keeper();
    assert_ne!(keeper, first.id());
    manager.forget_what_was_told();
    // systemctl start: the one that runs becomes the service.
    let mut second = manager.start(&stage, "second.log");
    let status = loop {
        if let Some(status) = second.ended().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(status.success(), "{}", second.log());
    assert_eq!(stage.keeper(), keeper);
    assert!(manager.was_told(&format!("MAINPID={keeper}")));
    eventually("it keeps what is held", || manager.names().len() > 4);
    // And is served by it when all are killed.
    kill_all(&stage, true);
    let third = manager.start(&stage, "third.log");
    eventually("it serves", || answers(&stage));
    assert_eq!(stage.keeper(), third.id());
    stage.assert_all_right();
    drop(open);
    third.signal(Signal::TERM).unwrap();
    eventually("it stops when nobody uses it", || !answers(&stage));
    eventually("nothing is kept", || manager.names().is_empty());
}

#[test]
fn a_daemon_without_a_manager_makes_what_is_kept_worthless() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let manager = Manager::new(&mut stage);
    let _first = manager.start(&stage, "first.log");
    eventually("it serves", || answers(&stage));
    mount(&stage, "fanotify");
    kill_all(&stage, false);
    // Somebody is faster than the manager, such as `draught mount`. Who asks at the old socket waits for the
    // manager: not here.
    fs_err::remove_file(stage.root().join("draught.sock")).unwrap();
    let environment = std::mem::take(&mut stage.environment);
    stage.start(&[]);
    assert_eq!(stage.status()["mounts"].as_array().unwrap().len(), 0);
    succeed(&stage.mount());
    kill_all(&stage, true);
    stage.environment = environment;
    let second = manager.start(&stage, "second.log");
    eventually("it serves", || answers(&stage));
    let log = second.log();
    assert!(
        log.contains("what the service manager kept is not whole"),
        "{log}"
    );
    assert!(log.contains("lost keeper and worker"), "{log}");
    // What is mounted now is served right, and kept.
    mount(&stage, "fanotify");
    stage.assert_all_right();
    kill_all(&stage, false);
    let third = manager.start(&stage, "third.log");
    eventually("it serves", || answers(&stage));
    assert_eq!(stage.keeper(), third.id());
    stage.assert_all_right();
}
