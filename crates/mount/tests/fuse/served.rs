//! A mounted and served directory, for as long as a guard lives.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use draught_mount::fuse::{Files, FuseOptions, Session, Start, mount};
use draught_testkit::{MountGuard, Scratch};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Threads of sessions in tests: more than processors, so that they get into each other's way.
pub(crate) const THREADS: usize = 4;

/// Unmounted when dropped, before the session is stopped.
pub(crate) struct Served {
    pub(crate) dir: PathBuf,
    pub(crate) _guard: MountGuard,
    /// The descriptor as a keeper has it.
    pub(crate) device: OwnedFd,
    pub(crate) session: Option<Session>,
    /// Removed last.
    pub(crate) _scratch: Scratch,
}

impl Served {
    /// Mounts and serves `files`.
    pub(crate) fn start(files: Arc<dyn Files>) -> Self {
        let mut served = Self::mounted();
        served.serve(files, Start::New);
        served
    }

    /// Mounts, and leaves the serving to others.
    pub(crate) fn mounted() -> Self {
        let scratch = Scratch::new();
        let dir = scratch.dir("mounted");
        let device = mount(&dir, &FuseOptions::default()).unwrap();
        Self {
            _guard: MountGuard::adopt(&dir),
            dir,
            device,
            session: None,
            _scratch: scratch,
        }
    }

    pub(crate) fn serve(&mut self, files: Arc<dyn Files>, start: Start) {
        let device = self.device.as_fd().try_clone_to_owned().unwrap();
        self.session = Some(Session::start(device, files, start, THREADS).unwrap());
    }

    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }
}

/// Bytes that differ everywhere, in a file.
pub(crate) fn write_file(path: &Path, len: usize, seed: u64) {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let bytes: Vec<u8> = words.flatten().take(len).collect();
    fs_err::write(path, bytes).unwrap();
}

/// Compares two files in another process: a reader that is killed must not take its server with it.
pub(crate) fn cmp(left: &Path, right: &Path) -> Command {
    let mut command = Command::new("cmp");
    command.arg(left).arg(right);
    command
}

/// Runs it; what it printed and how it ended.
pub(crate) fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

#[track_caller]
pub(crate) fn assert_success(output: &Output) {
    assert!(
        output.status.success(),
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Forgets what the kernel has cached of a file's content.
pub(crate) fn drop_pages(path: &Path) {
    let file = fs_err::File::open(path).unwrap();
    rustix::fs::fadvise(file.file(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

/// How reading a file to its end fails, or how long it is.
pub(crate) fn read_errno(path: &Path) -> Result<usize, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    let mut buffer = vec![0; 65_536];
    let mut total = 0;
    loop {
        match rustix::io::read(&file, &mut buffer)? {
            0 => return Ok(total),
            len => total += len,
        }
    }
}
