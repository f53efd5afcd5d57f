//! Images in a registry, a daemon with a snapshotter, and a containerd that asks it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use draught_digest::{Algorithm, Digest, Hasher};
use draught_testkit::images::{StoredLayer, write_stored_layout};
use draught_testkit::{Containerd, Process, Scratch, TestRegistry, need, process, registry};
use serde_json::Value;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The annotation with the digest of a table of contents.
const TOC: &str = "containerd.io/snapshot/stargz/toc.digest";

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Lazy,
}

/// A daemon, stopped in order when it is dropped, whoever of its processes is left by then.
struct Daemon {
    process: Process,
    root: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let mut stop = Command::new(env!("CARGO_BIN_EXE_draught"));
        stop.arg("--root")
            .arg(&self.root)
            .args(["daemon", "--stop"]);
        let stopped = stop.output().unwrap();
        if !stopped.status.success() {
            need::say(&String::from_utf8_lossy(&stopped.stderr));
        }
        if std::thread::panicking() {
            need::say(&self.process.log());
        }
    }
}

/// A registry, a daemon and a containerd.
pub(crate) struct Stage {
    // In the order in which they are to end: containers, what they stand on, where that comes from.
    pub(crate) containerd: Containerd,
    daemon: Option<Daemon>,
    pub(crate) registry: TestRegistry,
    pub(crate) scratch: Scratch,
}

/// What a command printed; a failure fails the test.
#[track_caller]
pub(crate) fn succeed(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}: {stderr}{stdout}",
        output.status
    );
    stdout
}

impl Stage {
    /// Starts everything. `None` where this can't be tested; that was said loudly then.
    pub(crate) fn new() -> Option<Self> {
        let scratch = Scratch::new();
        let socket = scratch.join("snapshotter.sock");
        Self::with(scratch, |_| Containerd::start(&[("draught", &socket)]))
    }

    /// The same with another containerd, whose snapshotter's socket is `snapshotter.sock` below the scratch directory.
    pub(crate) fn with(
        scratch: Scratch,
        containerd: impl FnOnce(&TestRegistry) -> Option<Containerd>,
    ) -> Option<Self> {
        if !need::root() || !need::filesystem("erofs") {
            return None;
        }
        need::tool("busybox")?;
        need::tool("runc")?;
        need::tool("ctr-remote")?;
        let registry = registry();
        let containerd = containerd(&registry)?;
        let mut stage = Self {
            containerd,
            daemon: None,
            registry,
            scratch,
        };
        stage.start();
        Some(stage)
    }

    /// The snapshotter's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.scratch.join("snapshotter.sock")
    }

    /// The socket of the image service that is passed on.
    pub(crate) fn images_socket(&self) -> PathBuf {
        self.scratch.join("images.sock")
    }

    /// The layout from which an image was pushed.
    pub(crate) fn layout(&self, name: &str) -> PathBuf {
        let dir = name.replace([':', '/'], "-");
        self.scratch.join(dir).join("layout")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.scratch.join("root")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_draught"));
        command
            .env("DRAUGHT_LOG", "info")
            .env("DRAUGHT_ROOT", self.root())
            .env("DOCKER_CONFIG", self.scratch.path())
            .env_remove("REGISTRY_AUTH_FILE")
            .args(args);
        command
    }

    #[track_caller]
    pub(crate) fn draught(&self, args: &[&str]) -> String {
        succeed(&self.command(args).output().unwrap())
    }

    /// What a command says that has to fail.
    #[track_caller]
    pub(crate) fn draught_fails(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(!output.status.success(), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Starts the daemon and waits until it answers.
    pub(crate) fn start(&mut self) {
        let socket = self.socket();
        let mut command = self.command(&["daemon", "--snapshotter"]);
        command.arg(socket).arg("--containerd");
        command.arg(self.containerd.socket());
        command.arg("--cri-images").arg(self.images_socket());
        command.args(["--log-format", "json"]);
        let log = self.scratch.join("daemon.log");
        let mut daemon = Process::start(&mut command, &log).unwrap();
        let answers = || self.command(&["ps"]).output().unwrap().status.success();
        daemon.wait_until(PATIENCE, answers).unwrap();
        let root = self.root();
        self.daemon = Some(Daemon {
            process: daemon,
            root,
        });
    }

    /// Stops the daemon: nothing may run.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.daemon = None;
    }

    pub(crate) fn log(&self) -> String {
        let daemon = self.daemon.as_ref();
        daemon
            .map(|daemon| daemon.process.log())
            .unwrap_or_default()
    }

    /// What the log says of layers with these words: each line's fields.
    #[track_caller]
    pub(crate) fn logged(&self, words: &str) -> Vec<Value> {
        let log = self.log();
        let lines = log.lines().map(|line| {
            let parsed: Result<Value, _> = serde_json::from_str(line);
            assert!(parsed.is_ok(), "no JSON: {line}");
            parsed.unwrap()["fields"].clone()
        });
        let matching = lines.filter(|fields| fields["message"].as_str() == Some(words));
        matching.collect()
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.draught(&["ps", "--format", "json"])).unwrap()
    }

    /// Puts an image of these layers into the registry: archives, each packed in its form.
    pub(crate) fn push(&self, name: &str, layers: &[(Form, &[u8])]) -> String {
        let reference = self.registry.reference(name);
        let dir = self.scratch.dir(name.replace([':', '/'], "-"));
        let plain: Vec<_> = layers.iter().map(|(_, archive)| plain(archive)).collect();
        let (from, to) = (dir.join("plain"), dir.join("lazy"));
        write_stored_layout(&from, &plain).unwrap();
        let place = |path: &Path| format!("oci:{}:latest", path.display());
        // Small chunks, so that there is much to fetch.
        let (chunks, small) = ("--chunk-size", "64KiB");
        self.draught(&[
            "convert",
            "--to",
            "estargz",
            chunks,
            small,
            &place(&from),
            &place(&to),
        ]);
        let each = layers.iter().zip(plain).zip(stored_layers(&to));
        let stored: Vec<_> = each
            .map(|(((form, _), plain), lazy)| match form {
                Form::Plain => plain,
                Form::Lazy => lazy,
            })
            .collect();
        let layout = dir.join("layout");
        write_stored_layout(&layout, &stored).unwrap();
        let mut copy = Command::new("skopeo");
        copy.args(["copy", "--dest-tls-verify=false", "--preserve-digests"]);
        copy.arg(place(&layout));
        process::run(copy.arg(format!("docker://{reference}")));
        reference
    }

    /// Pulls an image as lazily as its layers are.
    #[track_caller]
    pub(crate) fn pull(&self, reference: &str) {
        succeed(&self.try_pull(reference));
    }

    pub(crate) fn try_pull(&self, reference: &str) -> Output {
        let mut pull = self.containerd.client("ctr-remote");
        pull.args([
            "images",
            "rpull",
            "--plain-http",
            "--snapshotter",
            "draught",
        ]);
        pull.arg(reference).output().unwrap()
    }

    /// A container's name: runc knows those of all containerds by one list.
    pub(crate) fn id(&self, name: &str) -> String {
        format!("{name}-{}", std::process::id())
    }

    /// Runs a command in a container that is removed afterwards, and gives what it printed.
    #[track_caller]
    pub(crate) fn run(&self, reference: &str, id: &str, script: &str) -> String {
        succeed(&self.try_run(reference, id, script))
    }

    pub(crate) fn try_run(&self, reference: &str, id: &str, script: &str) -> Output {
        let mut run = self.containerd.ctr();
        run.args(["run", "--rm", "--snapshotter", "draught"]);
        run.args([reference, &self.id(id), "/bin/sh", "-c", script]);
        run.output().unwrap()
    }

    #[track_caller]
    pub(crate) fn ctr(&self, args: &[&str]) -> String {
        succeed(&self.containerd.ctr().args(args).output().unwrap())
    }

    /// Starts a container that stays, and gives its name.
    #[track_caller]
    pub(crate) fn run_long(&self, reference: &str) -> String {
        let id = self.id("long");
        let draught = ["run", "--detach", "--snapshotter", "draught"];
        self.ctr(&[&draught[..], &[reference, &id, "/bin/sleep", "1000"]].concat());
        id
    }

    /// Runs a command in a container that stays.
    #[track_caller]
    pub(crate) fn exec(&self, id: &str, name: &str, command: &[&str]) -> String {
        let exec = ["tasks", "exec", "--exec-id", name, id];
        self.ctr(&[&exec[..], command].concat())
    }

    /// Ends a container that stays.
    #[track_caller]
    pub(crate) fn end_long(&self, id: &str) {
        self.ctr(&["tasks", "kill", "--signal", "KILL", id]);
        self.ctr(&["tasks", "delete", "--force", id]);
        self.ctr(&["containers", "delete", id]);
    }

    /// An image that is too large to be fetched at once, in lazy layers: each file `data/unread-N` is a quarter of it.
    pub(crate) fn push_large(&self, name: &str) -> String {
        let [base, middle, large] = [("base", BASE), ("middle", MIDDLE), ("large", LARGE)]
            .map(|(name, script)| archive(&self.scratch, name, script));
        self.push(
            name,
            &[
                (Form::Lazy, &base),
                (Form::Lazy, &middle),
                (Form::Lazy, &large),
            ],
        )
    }

    /// Lets a container read one of these files, and compares it.
    #[track_caller]
    pub(crate) fn assert_read(&self, number: usize, read: impl FnOnce(&[&str]) -> String) {
        let file = format!("data/unread-{number}");
        let expected = fs_err::read(self.scratch.join("large.d").join(&file)).unwrap();
        let expected = Digest::sha256(&expected).hex();
        let seen = read(&["/bin/sha256sum", &format!("/{file}")]);
        assert!(seen.starts_with(&expected), "{seen} {}", self.log());
    }

    /// Waits until something is so.
    #[track_caller]
    pub(crate) fn eventually(&self, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// How many images are mounted.
    pub(crate) fn mounts(&self) -> usize {
        self.status()["mounts"].as_array().unwrap().len()
    }

    /// The mount of an image.
    #[track_caller]
    pub(crate) fn mount_of(&self, reference: &str) -> Value {
        let status = self.status();
        let mounts = status["mounts"].as_array().unwrap();
        let is_it = |mount: &&Value| mount["ref"].as_str().unwrap().starts_with(reference);
        let found = mounts.iter().find(is_it);
        assert!(found.is_some(), "{reference}: {status}");
        found.unwrap().clone()
    }

    /// The layers of an image, as the daemon says what became of them: whether each is lazy, and why not.
    pub(crate) fn layers(&self, reference: &str) -> BTreeMap<String, (bool, Option<String>)> {
        let status = self.status();
        let layers = status["layers"].as_array().unwrap().clone();
        let of_image = layers
            .iter()
            .filter(|layer| layer["ref"].as_str().unwrap().starts_with(reference));
        let entry = |layer: &Value| {
            let digest = layer["digest"].as_str().unwrap_or_default().to_owned();
            let why = layer["why"].as_str().map(str::to_owned);
            (digest, (layer["lazy"].as_bool().unwrap(), why))
        };
        of_image.map(entry).collect()
    }
}

/// The layers of a layout's image, in gzip with a table of contents.
fn stored_layers(layout: &Path) -> Vec<StoredLayer> {
    let read =
        |path: PathBuf| -> Value { serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap() };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
        layout.join("blobs").join(digest)
    };
    let index = read(layout.join("index.json"));
    let manifest = read(blob(&index["manifests"][0]));
    let config = read(blob(&manifest["config"]));
    let layers = manifest["layers"].as_array().unwrap();
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    let each = layers.iter().zip(diff_ids);
    each.map(|(layer, diff_id)| StoredLayer {
        blob: fs_err::read(blob(layer)).unwrap(),
        diff_id: diff_id.as_str().unwrap().parse().unwrap(),
        annotations: vec![(TOC, layer["annotations"][TOC].as_str().unwrap().to_owned())],
    })
    .collect()
}

/// A layer as any builder writes it.
fn plain(archive: &[u8]) -> StoredLayer {
    use std::io::Write as _;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(archive);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(archive).unwrap();
    let diff_id: Digest = hasher.finish();
    StoredLayer {
        blob: gzip.finish().unwrap(),
        diff_id,
        annotations: Vec::new(),
    }
}

/// An archive of what a script makes in an empty directory, as root, with busybox.
pub(crate) fn archive(scratch: &Scratch, name: &str, script: &str) -> Vec<u8> {
    let dir = scratch.dir(format!("{name}.d"));
    let mut make = Command::new("sh");
    make.args(["-e", "-c", script]).current_dir(&dir);
    process::run(&mut make);
    let file = scratch.join(format!("{name}.tar"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--numeric-owner", "-cf"])
        .arg(&file);
    process::run(tar.arg("-C").arg(&dir).arg("."));
    fs_err::read(file).unwrap()
}

/// What a container needs to run anything.
pub(crate) const BASE: &str = "
    mkdir -p bin etc proc sys dev tmp root data
    chmod 1777 tmp
    cp $(command -v busybox) bin/busybox
    for name in sh cat ls id sleep echo mkdir rm touch stat sha256sum find head mv chmod; do
        ln -s busybox bin/$name
    done
    echo 'root:x:0:0:root:/root:/bin/sh' > etc/passwd
    echo 'user:x:1000:1000:user:/:/bin/sh' >> etc/passwd
    echo 'root:x:0:' > etc/group
    echo base > data/which
    echo gone > data/gone
    mkdir data/opaque data/deep data/deep/er
    echo old > data/opaque/old
    echo base > data/deep/er/file
    head -c 3000000 /dev/urandom > data/random
";
/// More than is fetched at once, in pieces that a test can read one by one.
const LARGE: &str = "
    mkdir data
    for number in 0 1 2 3; do head -c 16000000 /dev/urandom > data/unread-$number; done
";
/// Files that come, change and go.
pub(crate) const MIDDLE: &str = "
    mkdir -p data/opaque data/deep/er
    echo middle > data/which
    touch data/.wh.gone data/opaque/.wh..wh..opq
    echo new > data/opaque/new
    echo middle > data/deep/middle
    head -c 200000 /dev/urandom > data/middle
";
/// Files that come and change again, and one that comes back.
pub(crate) const TOP: &str = "
    mkdir -p data/deep
    echo top > data/which
    echo back > data/gone
    touch data/deep/.wh.er
    echo top > data/deep/top
    head -c 200000 /dev/urandom > data/top
";
