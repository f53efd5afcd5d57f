//! A containerd, a registry, and an image that is in both.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use draught_testkit::images::{Layer, Packing, write_layout};
use draught_testkit::process::run;
use draught_testkit::{Containerd, Scratch, TestRegistry, docker_registry, need, registry};
use serde_json::Value;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Layers of the image.
pub(crate) const LAYERS: usize = 3;
/// Bytes of the file in each: some messages long, and hard to compress.
const FILE_BYTES: usize = 4 << 20;

/// containerd with an image that it pulled from the registry.
pub(crate) struct Stage {
    pub(crate) containerd: Containerd,
    pub(crate) registry: TestRegistry,
    /// Another one, of another make.
    pub(crate) other: TestRegistry,
    pub(crate) scratch: Scratch,
}

/// Bytes that are the same in every run.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let mut bytes: Vec<u8> = words.take(len / 8 + 1).flatten().collect();
    bytes.truncate(len);
    bytes
}

/// Writes an image as an OCI layout.
fn image(scratch: &Scratch, name: &str, seed: u64) -> std::path::PathBuf {
    let dir = scratch.join(name);
    let archives = (0..LAYERS as u64).map(|index| {
        let root = scratch.dir(format!("{name}-layer-{index}"));
        let file = root.join(format!("file-{index}"));
        fs_err::write(&file, noise(seed + index, FILE_BYTES)).unwrap();
        let mut tar = Command::new("tar");
        tar.args(["--create", "--mtime=@0", "--owner=0", "--group=0", "."]);
        tar.current_dir(&root).output().unwrap().stdout
    });
    let layers = archives.map(|archive| Layer {
        archive: Box::new(std::io::Cursor::new(archive)),
        packing: Packing::Gzip,
    });
    write_layout(&dir, layers.collect()).unwrap();
    dir
}

fn copy_image(from: &str, to: &str) {
    let mut skopeo = Command::new("skopeo");
    skopeo.args([
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        "--src-tls-verify=false",
    ]);
    run(skopeo.args(["--insecure-policy", from, to]));
}

impl Stage {
    /// `None` where this can't be tested; that was said loudly then.
    pub(crate) fn new() -> Option<Self> {
        need::tool("skopeo")?;
        let containerd = Containerd::start(&[])?;
        let other = docker_registry()?;
        let stage = Self {
            containerd,
            registry: registry(),
            other,
            scratch: Scratch::new(),
        };
        let layout = image(&stage.scratch, "image", 1);
        let from = format!("oci:{}:latest", layout.display());
        copy_image(&from, &format!("docker://{}", stage.reference()));
        Some(stage)
    }

    /// The image's name.
    pub(crate) fn reference(&self) -> String {
        self.registry.reference("some/app:1")
    }

    /// Puts another image into the registry and gives the text of its manifest.
    pub(crate) fn push_another(&self, name: &str) -> String {
        let layout = image(&self.scratch, name, 100);
        let to = format!(
            "docker://{}",
            self.registry.reference(&format!("some/app:{name}"))
        );
        copy_image(&format!("oci:{}:latest", layout.display()), &to);
        self.manifest(&to)
    }

    /// The manifest of an image, as it is there.
    pub(crate) fn manifest(&self, of: &str) -> String {
        let mut skopeo = Command::new("skopeo");
        run(skopeo.args(["inspect", "--raw", "--tls-verify=false", of]))
    }

    /// The digests of the image's layers.
    pub(crate) fn layers(&self) -> Vec<String> {
        let manifest = self.manifest(&format!("docker://{}", self.reference()));
        layers_of(&manifest)
    }

    /// `ctr`, which must succeed; gives what it printed.
    #[track_caller]
    pub(crate) fn ctr(&self, args: &[&str]) -> String {
        run(self.containerd.ctr().args(args))
    }

    /// Pulls the image and takes its layers away, as if it had been pulled lazily.
    pub(crate) fn pull_lazily(&self) -> Vec<String> {
        self.ctr(&[
            "images",
            "pull",
            "--plain-http",
            "--snapshotter",
            "native",
            &self.reference(),
        ]);
        let layers = self.layers();
        for layer in &layers {
            self.ctr(&["content", "rm", layer]);
        }
        // Until then they are there for other namespaces.
        self.collect();
        self.registry.proxy().reset_counts();
        layers
    }

    /// Blobs that containerd has.
    pub(crate) fn has(&self, digest: &str) -> bool {
        self.ctr(&["content", "ls", "--quiet"])
            .lines()
            .any(|line| line == digest)
    }

    /// Collects garbage now.
    pub(crate) fn collect(&self) {
        self.ctr(&["leases", "create", "--id", "to-be-collected"]);
        self.ctr(&["leases", "rm", "--sync", "to-be-collected"]);
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_draught"));
        command
            .args(["--progress", "plain", "--format", "json", "--root"])
            .arg(self.scratch.join("state"))
            .args(args)
            .env_remove("CONTAINERD_ADDRESS")
            .env_remove("CONTAINERD_NAMESPACE")
            .env("DOCKER_CONFIG", self.scratch.path())
            .env("HOME", self.scratch.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn materializing(&self, args: &[&str]) -> Command {
        let mut command = self.command(&["materialize"]);
        command.arg("--containerd").arg(self.containerd.socket());
        command.arg(self.reference()).args(args);
        command
    }

    pub(crate) fn try_materialize(&self, args: &[&str]) -> Output {
        self.materializing(args).output().unwrap()
    }

    /// Materializes the image and gives the report.
    #[track_caller]
    pub(crate) fn materialize(&self, args: &[&str]) -> Value {
        let text = run(&mut self.materializing(args));
        serde_json::from_str(&text).unwrap()
    }

    /// Exports the image; whether that worked.
    pub(crate) fn export(&self, to: &Path) -> Output {
        let mut ctr = self.containerd.ctr();
        ctr.args(["images", "export"]).arg(to).arg(self.reference());
        ctr.output().unwrap()
    }
}

/// The digests of the layers that a manifest names.
pub(crate) fn layers_of(manifest: &str) -> Vec<String> {
    let manifest: Value = serde_json::from_str(manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let digest = |layer: &Value| layer["digest"].as_str().unwrap().to_owned();
    layers.iter().map(digest).collect()
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to be that {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
