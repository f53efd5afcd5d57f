//! A set-up that is right, and what is said of one that is not.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use draught_testkit::http::Request;
use draught_testkit::{Containerd, Process, Scratch};
use serde_json::Value;

use crate::snapshotter::Snapshotter;
use crate::stage::PATIENCE;

struct Patient {
    scratch: Scratch,
}

impl Patient {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_draught"));
        command
            .args(["--format", "json", "--root"])
            .arg(self.scratch.join("root"))
            .args(args)
            .env_remove("CONTAINERD_ADDRESS")
            .stdin(Stdio::null());
        command
    }

    fn socket(&self) -> std::path::PathBuf {
        self.scratch.join("snapshotter.sock")
    }

    fn ask(&self, containerd: &Path, args: &[&str]) -> Output {
        let mut command = self.command(&["doctor"]);
        command.arg("--snapshotter").arg(self.socket());
        command.arg("--containerd").arg(containerd);
        command.arg("--containerd-config").arg("/nowhere.toml");
        command.args(args).output().unwrap()
    }

    fn daemon(&self, args: &[&str]) -> Process {
        let mut command = self.command(&["daemon"]);
        command.args(args);
        let mut daemon = Process::start(&mut command, &self.scratch.join("log")).unwrap();
        let answers = || self.command(&["ps"]).output().unwrap().status.success();
        daemon.wait_until(PATIENCE, answers).unwrap();
        daemon
    }
}

/// What was found of something: its state and words.
fn found(output: &Output, what: &str) -> (String, String) {
    let checks: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let check = checks.iter().find(|check| check["what"] == what);
    let check = check.unwrap_or_else(|| panic!("nothing is said of {what}: {checks:?}"));
    let text = |name: &str| check[name].as_str().unwrap_or_default().to_owned();
    (text("state"), text("found"))
}

#[test]
fn every_part_of_a_set_up_is_looked_at() {
    let patient = Patient {
        scratch: Scratch::new(),
    };
    let socket = patient.socket();
    let Some(containerd) = Containerd::start(&[("draught", &socket)]) else {
        return;
    };
    let nothing = patient.ask(Path::new("/nowhere.sock"), &[]);
    assert_eq!(nothing.status.code(), Some(1));
    for what in ["daemon", "snapshotter", "containerd"] {
        assert_eq!(found(&nothing, what).0, "wrong", "{what}");
    }
    for what in ["overlayfs", "space", "mounts"] {
        assert_eq!(found(&nothing, what).0, "right", "{what}");
    }
    assert_ne!(found(&nothing, "kernel").0, "wrong");
    // Registered, and nobody there.
    let (state, words) = found(
        &patient.ask(containerd.socket(), &[]),
        "containerd's plugin",
    );
    assert_eq!(state, "wrong");
    assert!(
        words.contains("is registered and does not answer"),
        "{words}"
    );
    let daemon = patient.daemon(&[]);
    let ready = patient.ask(containerd.socket(), &["--ready"]);
    assert_eq!(ready.status.code(), Some(1), "the snapshotter is missing");
    let snapshotter = Snapshotter::start(&socket);
    let all = patient.ask(containerd.socket(), &[]);
    let words = String::from_utf8_lossy(&all.stdout).into_owned();
    assert_eq!(all.status.code(), Some(0), "{words}");
    for what in [
        "daemon",
        "control socket",
        "snapshotter",
        "snapshotter's permissions",
        "containerd",
        "containerd's plugin",
        "Kubernetes (CRI)",
    ] {
        assert_eq!(found(&all, what).0, "right", "{what}: {words}");
    }
    let ready = patient.ask(containerd.socket(), &["--ready"]);
    assert_eq!(ready.status.code(), Some(0));
    // Whoever may use the socket may use the machine.
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs_err::set_permissions(&socket, everybody).unwrap();
    let open = patient.ask(containerd.socket(), &[]);
    assert_eq!(found(&open, "snapshotter's permissions").0, "wrong");
    drop(snapshotter);
    let gone = patient.ask(containerd.socket(), &["--ready"]);
    assert_eq!(gone.status.code(), Some(1));
    patient.command(&["daemon", "--stop"]).output().unwrap();
    drop(daemon);
}

#[test]
fn a_containerd_without_the_plugin_is_told_what_it_lacks() {
    let patient = Patient {
        scratch: Scratch::new(),
    };
    let Some(containerd) = Containerd::start(&[]) else {
        return;
    };
    let output = patient.ask(containerd.socket(), &[]);
    assert_eq!(found(&output, "containerd").0, "right");
    let (state, words) = found(&output, "containerd's plugin");
    assert_eq!(
        (state.as_str(), words.as_str()),
        ("wrong", "it has no snapshotter draught")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_are_answered_beside_the_metrics() {
    let patient = Patient {
        scratch: Scratch::new(),
    };
    let address = draught_testkit::net::free_addr();
    let daemon = patient.daemon(&["--metrics", &address.to_string()]);
    for (page, expect) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/", 404),
    ] {
        let answer = loop {
            // It answers commands a moment before it does pages.
            match Request::new("GET", page).send(address).await {
                Ok(answer) => break answer,
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(10)),
            }
        };
        assert_eq!(answer.status(), expect, "{page}");
        if page == "/readyz" {
            assert_eq!(answer.body, b"ok\n");
        }
    }
    // A store that is gone is not ready to be used.
    fs_err::remove_dir_all(patient.scratch.join("root/store")).unwrap();
    let answer = Request::new("GET", "/readyz").send(address).await.unwrap();
    assert_eq!(answer.status(), 503);
    let words = String::from_utf8(answer.body).unwrap();
    assert!(words.contains("the store can't be used"), "{words}");
    let answer = Request::new("GET", "/healthz").send(address).await.unwrap();
    assert_eq!(answer.status(), 200);
    patient.command(&["daemon", "--stop"]).output().unwrap();
    drop(daemon);
}

#[test]
fn what_is_said_of_registries_is_looked_at() {
    let patient = Patient {
        scratch: Scratch::new(),
    };
    let dirs = patient.scratch.dir("certs.d");
    let ask = || {
        let hosts = ["--hosts-dir", dirs.to_str().unwrap()];
        found(
            &patient.ask(Path::new("/nowhere.sock"), &hosts),
            "registries' hosts",
        )
    };
    assert_eq!(ask().0, "right");
    let dir = patient.scratch.dir("certs.d/registry.example_5000_");
    let write = |text: &str| fs_err::write(dir.join("hosts.toml"), text).unwrap();
    write("[host.\"https://mirror.example\"]\nca = \"ca.crt\"\n");
    let (state, words) = ask();
    assert_eq!(state, "wrong");
    assert!(
        words.contains("registry.example_5000_/ca.crt is not there"),
        "{words}"
    );
    fs_err::write(dir.join("ca.crt"), "").unwrap();
    assert_eq!(
        ask(),
        ("right".to_owned(), "1 directories can be read".to_owned())
    );
    write("[host.\"https://mirror.example\"]\nspeed = \"fast\"\n");
    let (state, words) = ask();
    assert_eq!(state, "hint");
    assert!(words.contains("speed"), "{words}");
    write("[host.\"https://mirror.example\"\n");
    let (state, words) = ask();
    assert_eq!(state, "wrong");
    assert!(
        words.contains("hosts.toml") && words.contains("line 1"),
        "{words}"
    );
}
