//! Where the demonstration takes place: a directory, and a daemon of its own in it. Both are gone at
//! the end, however it ends.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use draught_node::{Client, Layout};
use tempfile::TempDir;

use crate::output;

/// How often the daemon is asked to stop: what is in use a moment ago may be so no more.
const STOP_TRIES: u32 = 50;

/// The pause between these.
const STOP_PAUSE: Duration = Duration::from_millis(100);

/// The directory and the daemon.
#[derive(Debug)]
pub(crate) struct Stage {
    scratch: Option<TempDir>,
    path: PathBuf,
}

impl Stage {
    /// Makes a directory below `parent`.
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        let scratch = tempfile::Builder::new()
            .prefix("draught-demo-")
            .tempdir_in(parent)
            .with_context(|| format!("make a directory in {}", parent.display()))?;
        // As the kernel shows it in its list of mounts.
        let path = fs_err::canonicalize(scratch.path())?;
        Ok(Self {
            scratch: Some(scratch),
            path,
        })
    }

    /// The path of a name in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes an empty directory in it.
    pub(crate) fn dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.join(name);
        fs_err::create_dir(&path)?;
        Ok(path)
    }

    /// The state directory of its daemon.
    pub(crate) fn state(&self) -> PathBuf {
        self.join("state")
    }

    /// Its daemon, whether it runs or not.
    pub(crate) fn daemon(&self) -> Client {
        Client::new(Layout::new(self.state()))
    }

    /// Unmounts all and stops the daemon, if one runs.
    fn stop(&self) -> Result<()> {
        let daemon = self.daemon();
        if !self.state().exists() || !daemon.is_running()? {
            return Ok(());
        }
        let mut outcome = daemon.stop();
        for _ in 1..STOP_TRIES {
            if outcome.is_ok() {
                break;
            }
            std::thread::sleep(STOP_PAUSE);
            outcome = daemon.stop();
        }
        Ok(outcome?)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            // Nothing may be removed below a live mount.
            output::say(&format!(
                "{} is left behind, its daemon does not stop: {error:#}\nstop it with: draught --root {} daemon --stop",
                self.path.display(),
                self.state().display()
            ));
            self.scratch.take().map(TempDir::keep);
            return;
        }
        if let Some(Err(error)) = self.scratch.take().map(TempDir::close) {
            output::say(&format!(
                "{} could not be removed: {error}",
                self.path.display()
            ));
        }
    }
}
