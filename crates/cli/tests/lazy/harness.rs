//! An image, a registry that can be broken, and a daemon that can be killed.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use draught_testkit::{Process, Scratch, TestRegistry, need, registry};
use rustix::fs::Advice;
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A generator of numbers that are the same in every run.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Bytes that compress, but not to nothing.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 16);
        while bytes.len() < len {
            let word = self.next();
            bytes.extend_from_slice(&word.to_le_bytes());
            bytes.extend_from_slice(&[(word & 7) as u8; 8]);
        }
        bytes.truncate(len);
        bytes
    }
}

/// A file of the test image that no test reads, so that no device becomes complete by itself.
pub(crate) const UNREAD: &str = "unread";

/// The files of the test image: path and content.
pub(crate) fn files() -> BTreeMap<String, Vec<u8>> {
    let mut numbers = Numbers::new(1);
    let mut files = BTreeMap::new();
    for index in 0..160_u64 {
        let len = match index % 8 {
            0 => numbers.below(2_000_000),
            1 => 4096 * (1 + numbers.below(16)),
            2 => 0,
            _ => numbers.below(60_000),
        };
        let content = numbers.bytes(usize::try_from(len).unwrap());
        files.insert(format!("dir-{}/file-{index}", index % 7), content);
    }
    files.insert(UNREAD.to_owned(), numbers.bytes(100_000));
    files
}

/// A registry with the test image in it, a daemon's state directory, and a directory to mount on.
pub(crate) struct Stage {
    pub(crate) scratch: Scratch,
    pub(crate) registry: TestRegistry,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) mountpoint: PathBuf,
    /// What every later command and daemon has in its environment.
    pub(crate) environment: Vec<(String, String)>,
    daemon: Option<Process>,
}

/// Runs a command and gives what it printed; a failure fails the test.
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
    /// `None` where this can't be tested; that was said loudly then.
    pub(crate) fn new() -> Option<Self> {
        if !need::root() || !need::filesystem("erofs") {
            return None;
        }
        let scratch = Scratch::new();
        let files = files();
        let rootfs = scratch.dir("rootfs");
        for (path, content) in &files {
            let path = rootfs.join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, content).unwrap();
        }
        let registry = registry();
        let mountpoint = scratch.dir("mnt");
        let stage = Self {
            scratch,
            registry,
            files,
            mountpoint,
            environment: Vec::new(),
            daemon: None,
        };
        let source = format!("dir:{}", rootfs.display());
        // Small chunks, so that there is much to fetch.
        succeed(&stage.draught(&[
            "convert",
            "--chunk-size",
            "64KiB",
            &source,
            &stage.reference(),
        ]));
        Some(stage)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.scratch.join("root")
    }

    pub(crate) fn reference(&self) -> String {
        self.registry.reference("test:latest")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_draught"));
        command
            .env("DRAUGHT_LOG", "info")
            .env("DRAUGHT_ROOT", self.root())
            .env("DOCKER_CONFIG", self.docker_config())
            .env_remove("REGISTRY_AUTH_FILE")
            .envs(self.environment.iter().cloned())
            .args(args);
        command
    }

    pub(crate) fn draught(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Starts a daemon and waits until it answers.
    pub(crate) fn start(&mut self, args: &[&str]) {
        let mut command = self.command(&["daemon"]);
        command.args(args);
        let log = self.scratch.join("daemon.log");
        let mut daemon = Process::start(&mut command, &log).unwrap();
        let answers = || self.command(&["ps"]).output().unwrap().status.success();
        daemon.wait_until(PATIENCE, answers).unwrap();
        self.daemon = Some(daemon);
    }

    pub(crate) fn log(&self) -> String {
        self.daemon.as_ref().map(Process::log).unwrap_or_default()
    }

    pub(crate) fn keeper(&self) -> u32 {
        self.status()["keeper_pid"]
            .as_u64()
            .unwrap()
            .try_into()
            .unwrap()
    }

    pub(crate) fn mount(&self) -> Output {
        self.draught(&[
            "mount",
            &self.reference(),
            self.mountpoint.to_str().unwrap(),
        ])
    }

    pub(crate) fn umount(&self) -> Output {
        self.draught(&["umount", self.mountpoint.to_str().unwrap()])
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::from_str(&succeed(&self.draught(&["ps", "--format", "json"]))).unwrap()
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.mountpoint.join(file)
    }

    /// Reads a file past the page cache and says whether it is right.
    pub(crate) fn read(&self, file: &str) -> std::io::Result<bool> {
        Ok(read_range(&self.path(file), 0, self.files[file].len())? == self.files[file])
    }

    /// Compares every byte of every file but the one that stays unread.
    #[track_caller]
    pub(crate) fn assert_all_right(&self) {
        for file in self.files.keys().filter(|file| *file != UNREAD) {
            assert!(self.read(file).unwrap(), "{file} has other bytes");
        }
    }

    /// The names of files that have content, but for the one that stays unread.
    pub(crate) fn readable(&self) -> Vec<&str> {
        let readable =
            |(name, content): &(&String, &Vec<u8>)| name.as_str() != UNREAD && !content.is_empty();
        self.files
            .iter()
            .filter(readable)
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Lets `threads` readers read random ranges past the page cache and compare them, until `during`
    /// returns. Gives the number of reads. Any error, and any wrong byte, fails the test.
    pub(crate) fn read_during(&self, threads: u64, during: impl FnOnce()) -> u64 {
        let done = AtomicBool::new(false);
        let reads = AtomicU64::new(0);
        let names = self.readable();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (names, done, reads) = (&names, &done, &reads);
                scope.spawn(move || {
                    let mut numbers = Numbers::new(thread + 100);
                    while !done.load(Ordering::Relaxed) {
                        self.read_something(names, &mut numbers);
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            // The readers end even if this panics, so that the test fails rather than hangs.
            let _ends = Ends(&done);
            during();
        });
        reads.into_inner()
    }

    fn read_something(&self, names: &[&str], numbers: &mut Numbers) {
        let index = usize::try_from(numbers.below(names.len() as u64)).unwrap();
        let content = &self.files[names[index]];
        let start = usize::try_from(numbers.below(content.len() as u64)).unwrap();
        let len = usize::try_from(1 + numbers.below(200_000)).unwrap();
        let len = len.min(content.len() - start);
        let got = read_range(&self.path(names[index]), start, len);
        let got = got.unwrap_or_else(|error| panic!("{} at {start}: {error}", names[index]));
        assert!(
            got == content[start..start + len],
            "{} at {start}+{len} is wrong",
            names[index]
        );
    }
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads a range of a file that the page cache does not have.
pub(crate) fn read_range(path: &Path, start: usize, len: usize) -> std::io::Result<Vec<u8>> {
    let file = std::fs::OpenOptions::new().read(true).open(path)?;
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, start as u64)?;
    Ok(bytes)
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to be that {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn kill(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // It may have ended by itself in the meantime.
    let _gone = kill_process(pid, Signal::KILL);
}

/// The children of a process that are called so.
pub(crate) fn children(parent: u32, name: &str) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let children = fs_err::read_to_string(path).unwrap_or_default();
    children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .filter(|pid| {
            let comm = fs_err::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            comm.trim() == name
        })
        .collect()
}

impl Drop for Stage {
    fn drop(&mut self) {
        // In order, so that nothing stays mounted; what is left is ended by the guards.
        let _stopped = self.draught(&["daemon", "--stop"]);
        let _unmounted =
            rustix::mount::unmount(&self.mountpoint, rustix::mount::UnmountFlags::DETACH);
        if std::thread::panicking() {
            need::say(&self.log());
        }
    }
}

impl Stage {
    /// The image's data blob, and a position in it that holds chunk data.
    pub(crate) fn data_blob(&self) -> (draught_digest::Digest, usize) {
        let text = succeed(&self.draught(&["inspect", "--format", "json", &self.reference()]));
        let image: serde_json::Value = serde_json::from_str(&text).unwrap();
        let blob = &image["images"][0]["content"]["blobs"][0];
        let bytes = blob["stored_bytes"].as_u64().unwrap();
        (
            blob["digest"].as_str().unwrap().parse().unwrap(),
            usize::try_from(bytes / 3).unwrap(),
        )
    }

    /// Writes a docker configuration that every later command and daemon uses.
    pub(crate) fn log_in(&self, user: &str, password: &str) {
        use base64::Engine as _;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let host = self.registry.addr().to_string();
        let config = serde_json::json!({ "auths": { (host): { "auth": auth } } });
        fs_err::write(self.docker_config().join("config.json"), config.to_string()).unwrap();
    }

    fn docker_config(&self) -> PathBuf {
        self.scratch.dir("docker")
    }
}
