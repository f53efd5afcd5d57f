//! A writable tree over one that is not, as containers have it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use draught_testkit::MountGuard;

use crate::bench::measure;
use crate::run::command;

/// An overlay whose upper directory is in memory. Both mounts end with this.
#[derive(Debug)]
pub(super) struct Overlay {
    dir: PathBuf,
    // Dropped in this order.
    _merged: MountGuard,
    _memory: MountGuard,
}

impl Overlay {
    /// Mounts one over `lower`, with everything it needs in `work`.
    pub(super) fn over(lower: &Path, work: &Path) -> Result<Self> {
        let (memory, dir) = (work.join("memory"), work.join("merged"));
        for dir in [&memory, &dir] {
            fs_err::create_dir_all(dir)?;
        }
        let mut mount = command("mount", &["-t", "tmpfs", "draught-bench"]);
        measure::output(mount.arg(&memory))?;
        let memory_guard = MountGuard::adopt(&memory);
        let (upper, inner) = (memory.join("upper"), memory.join("work"));
        for dir in [&upper, &inner] {
            fs_err::create_dir_all(dir)?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            inner.display()
        );
        let mut mount = command("mount", &["-t", "overlay", "draught-bench", "-o"]);
        measure::output(mount.arg(options).arg(&dir))?;
        let merged = MountGuard::adopt(&dir);
        Ok(Self {
            dir,
            _merged: merged,
            _memory: memory_guard,
        })
    }

    /// Where it is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}
