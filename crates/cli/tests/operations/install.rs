//! A node is set up, and left as it was.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use draught_testkit::process::run;
use draught_testkit::{Scratch, need};
use serde_json::Value;

/// A configuration as somebody has it.
const CONFIG: &str = "\
# Mine, with care.
version = 2
oom_score = -500 # important

[plugins]
  [plugins.'io.containerd.grpc.v1.cri']
    sandbox_image = \"registry.example/pause:3\"
    [plugins.'io.containerd.grpc.v1.cri'.containerd]
      snapshotter = \"overlayfs\"
      default_runtime_name = \"runc\"
";

struct Node {
    scratch: Scratch,
}

impl Node {
    fn new() -> Self {
        Self {
            scratch: Scratch::new(),
        }
    }

    fn config(&self) -> PathBuf {
        self.scratch.join("config.toml")
    }

    fn drop_in(&self) -> PathBuf {
        self.scratch.join("conf.d/draught.toml")
    }

    fn unit(&self) -> PathBuf {
        self.scratch
            .join("prefix/etc/systemd/system/draught.service")
    }

    /// `draught install`, for a containerd of this version.
    fn try_install(&self, version: &str, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_draught"));
        command
            .args(["--format", "json", "--root", "/srv/draught", "install"])
            .args(["--containerd-version", version, "--systemd", "off"])
            .args([
                "--containerd",
                "/nowhere.sock",
                "--snapshotter",
                "/run/x/s.sock",
            ])
            .arg("--containerd-config")
            .arg(self.config())
            .args(args)
            .stdin(Stdio::null());
        command.output().unwrap()
    }

    #[track_caller]
    fn install(&self, version: &str, args: &[&str]) -> Value {
        let output = self.try_install(version, args);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{words}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What containerd makes of the configuration.
    fn dumped(&self) -> Option<toml::Table> {
        let containerd = need::tool("containerd")?;
        let mut command = Command::new(containerd);
        command.arg("--config").arg(self.config());
        Some(run(command.args(["config", "dump"])).parse().unwrap())
    }
}

fn read(path: &Path) -> String {
    fs_err::read_to_string(path).unwrap()
}

#[track_caller]
fn check_dump(dump: &toml::Table) {
    let proxy = &dump["proxy_plugins"]["draught"];
    assert_eq!(proxy["type"].as_str(), Some("snapshot"));
    assert_eq!(proxy["address"].as_str(), Some("/run/x/s.sock"));
    let cri = &dump["plugins"]["io.containerd.grpc.v1.cri"]["containerd"];
    assert_eq!(cri["snapshotter"].as_str(), Some("draught"));
    assert_eq!(cri["disable_snapshot_annotations"].as_bool(), Some(false));
}

#[test]
fn a_node_without_configuration_gets_one_and_loses_it_again() {
    let node = Node::new();
    let report = node.install("1.6", &[]);
    assert_eq!(report["files"][0]["action"], "create");
    if let Some(dump) = node.dumped() {
        check_dump(&dump);
    }
    node.install("1.6", &["--uninstall"]);
    assert!(!node.config().exists() && !node.drop_in().exists());
}

#[test]
fn what_somebody_configured_stays_and_comes_back_to_the_letter() {
    let node = Node::new();
    fs_err::write(node.config(), CONFIG).unwrap();
    node.install("1.7", &[]);
    if let Some(dump) = node.dumped() {
        check_dump(&dump);
        // CRI's section in another file would have taken the place of all of it.
        let cri = &dump["plugins"]["io.containerd.grpc.v1.cri"];
        assert_eq!(
            cri["sandbox_image"].as_str(),
            Some("registry.example/pause:3")
        );
        assert_eq!(
            cri["containerd"]["default_runtime_name"].as_str(),
            Some("runc")
        );
        assert_eq!(dump["oom_score"].as_integer(), Some(-500));
    }
    let backup = node.scratch.join("config.toml.before-draught");
    assert_eq!(read(&backup), CONFIG);
    let first = read(&node.config());
    // Again changes nothing.
    let report = node.install("1.7", &[]);
    let files = report["files"].as_array().unwrap();
    assert!(
        files.iter().all(|file| file["action"] == "keep"),
        "{report}"
    );
    assert_eq!(read(&node.config()), first);
    // What they change in the meantime stays too.
    let added = "[debug]\n  level = \"debug\"\n";
    fs_err::write(node.config(), format!("{first}{added}")).unwrap();
    node.install("1.7", &["--uninstall"]);
    assert_eq!(read(&node.config()), format!("{CONFIG}{added}"));
    assert!(!node.drop_in().exists());
    assert_eq!(read(&backup), CONFIG);
}

#[test]
fn a_section_that_is_imported_is_changed_where_it_is() {
    let node = Node::new();
    let dir = node.scratch.dir("conf.d");
    let imports = format!("version = 2\nimports = [\"{}/*.toml\"]\n", dir.display());
    fs_err::write(node.config(), &imports).unwrap();
    fs_err::write(dir.join("cri.toml"), CONFIG).unwrap();
    node.install("1.6", &[]);
    // Ours is imported by that pattern already.
    assert_eq!(read(&node.config()), imports);
    if let Some(dump) = node.dumped() {
        check_dump(&dump);
        let cri = &dump["plugins"]["io.containerd.grpc.v1.cri"];
        assert_eq!(
            cri["sandbox_image"].as_str(),
            Some("registry.example/pause:3")
        );
    }
    node.install("1.6", &["--uninstall"]);
    assert_eq!(read(&dir.join("cri.toml")), CONFIG);
}

#[test]
fn newer_versions_get_their_own_sections() {
    let node = Node::new();
    node.install("2.1.4", &[]);
    let main: toml::Table = read(&node.config()).parse().unwrap();
    assert_eq!(main["version"].as_integer(), Some(3));
    let ours: toml::Table = read(&node.drop_in()).parse().unwrap();
    let exports = &ours["proxy_plugins"]["draught"]["exports"];
    assert_eq!(exports["root"].as_str(), Some("/srv/draught"));
    let asks = &exports["enable_remote_snapshot_annotations"];
    assert_eq!(asks.as_str(), Some("true"));
    let cri = &ours["plugins"]["io.containerd.cri.v1.images"];
    assert_eq!(cri["snapshotter"].as_str(), Some("draught"));
    assert_eq!(cri["disable_snapshot_annotations"].as_bool(), Some(false));
    // Under a name that other clients know.
    node.install("2.1", &["--name", "draught-stargz"]);
    let ours: toml::Table = read(&node.drop_in()).parse().unwrap();
    let proxies = ours["proxy_plugins"].as_table().unwrap();
    assert_eq!(proxies.keys().collect::<Vec<_>>(), ["draught-stargz"]);
    let cri = &ours["plugins"]["io.containerd.cri.v1.images"];
    assert_eq!(cri["snapshotter"].as_str(), Some("draught-stargz"));
    assert_eq!(
        node.try_install("2.1", &["--name", "a\"b"]).status.code(),
        Some(2)
    );
    // With an older configuration its sections are written, whatever the version.
    fs_err::write(node.config(), CONFIG).unwrap();
    node.install("2.1", &["--cri", "off"]);
    let ours: toml::Table = read(&node.drop_in()).parse().unwrap();
    assert_eq!(ours["version"].as_integer(), Some(2));
    assert!(ours.get("plugins").is_none());
    let main: toml::Table = read(&node.config()).parse().unwrap();
    let cri = &main["plugins"]["io.containerd.grpc.v1.cri"]["containerd"];
    assert_eq!(cri["snapshotter"].as_str(), Some("overlayfs"));
}

#[test]
fn nothing_is_touched_that_is_not_understood_or_only_to_be_shown() {
    let node = Node::new();
    let report = node.install("1.6", &["--dry-run"]);
    let text = report["files"][0]["text"].as_str().unwrap();
    assert!(text.contains("[proxy_plugins.draught]"), "{text}");
    assert!(!node.config().exists() && !node.drop_in().exists());
    for (config, words) in [
        ("root = \"/data\"\n", "only versions 2 and 3"),
        ("version = 1\n", "only versions 2 and 3"),
        ("version = 2\n[plugins\n", "understand"),
        (
            "version = 2\nplugins.\"io.containerd.grpc.v1.cri\" = {containerd = {}}\n",
            "by hand",
        ),
    ] {
        fs_err::write(node.config(), config).unwrap();
        let output = node.try_install("1.6", &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{config}");
        assert!(said.contains(words), "{config}: {said}");
        assert_eq!(read(&node.config()), config);
        assert!(!node.drop_in().exists());
    }
}

#[test]
fn the_unit_is_one_that_systemd_understands() {
    let node = Node::new();
    let prefix = node.scratch.dir("prefix");
    let mut command = Command::new(env!("CARGO_BIN_EXE_draught"));
    command
        .args(["install", "--containerd-version", "1.6", "--prefix"])
        .arg(&prefix);
    run(&mut command);
    let unit = read(&node.unit());
    let program = env!("CARGO_BIN_EXE_draught");
    assert!(
        unit.contains(&format!("ExecStart={program} --root ")),
        "{unit}"
    );
    assert!(prefix.join("etc/containerd/conf.d/draught.toml").exists());
    let Some(analyze) = need::find("systemd-analyze") else {
        return;
    };
    let mut command = Command::new(analyze);
    let output = command.arg("verify").arg(node.unit()).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    // It says what it finds about units of the system, too.
    let about_ours: Vec<&str> = words
        .lines()
        .filter(|line| line.contains("draught"))
        .collect();
    assert!(output.status.success() && about_ours.is_empty(), "{words}");
}
