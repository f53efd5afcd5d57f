//! Scratch directories on a filesystem that behaves like the real one.

use std::path::{Path, PathBuf};

use crate::{mounted, need};

/// A directory for one test, removed when dropped.
///
/// It lies on the filesystem of [`need::cache_dir`], not in `/tmp`: that may be a tmpfs, which has
/// neither pre-content events nor direct I/O.
#[derive(Debug)]
pub struct Scratch {
    dir: PathBuf,
    keep: bool,
}

impl Scratch {
    /// An empty directory.
    ///
    /// # Panics
    ///
    /// If none can be made.
    #[must_use]
    pub fn new() -> Self {
        let wanted = need::cache_dir().join("scratch");
        // A user who may not write to the cache still gets a directory on a disk.
        let parent = match fs_err::create_dir_all(&wanted) {
            Ok(()) => wanted,
            Err(_) => PathBuf::from("/var/tmp"),
        };
        let made = tempfile::Builder::new()
            .prefix(&format!("t{}-", std::process::id()))
            .tempdir_in(&parent)
            .or_else(|_| tempfile::tempdir_in("/var/tmp"))
            .unwrap();
        let keep = std::env::var_os("DRAUGHT_TESTS_KEEP").is_some();
        // The real path, because mount tables and sockets show it without symbolic links.
        let dir = fs_err::canonicalize(made.keep()).unwrap();
        Self { dir, keep }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The path of `name` in it.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes the directory `name` in it, with its parents.
    ///
    /// # Panics
    ///
    /// If it can't be made.
    #[must_use]
    pub fn dir(&self, name: impl AsRef<Path>) -> PathBuf {
        let dir = self.join(name);
        fs_err::create_dir_all(&dir).unwrap();
        dir
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl AsRef<Path> for Scratch {
    fn as_ref(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // What is mounted in there belongs to whoever mounted it: never delete through it.
        let mounts = mounted::below(&self.dir);
        if !mounts.is_empty() {
            need::say(&format!(
                "{} is left: still mounted: {mounts:?}",
                self.dir.display()
            ));
            return;
        }
        if let Err(error) = fs_err::remove_dir_all(&self.dir) {
            need::say(&format!("a scratch directory is left: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_directory_goes_with_its_guard() {
        let scratch = Scratch::new();
        let path = scratch.dir("a/b");
        fs_err::write(path.join("file"), b"x").unwrap();
        let dir = scratch.path().to_owned();
        assert!(dir.is_dir());
        drop(scratch);
        assert!(!dir.exists());
    }
}
