//! What a test needs of the machine: root, tools, kernel abilities.
//!
//! A test that can't have it says so where nobody can miss it and returns; with
//! `DRAUGHT_TESTS_MUST_RUN=1` in the environment it fails instead, so that a machine meant to run
//! everything can't skip anything by accident.
//!
//! ```no_run
//! use draught_testkit::need;
//!
//! if !need::root() {
//!     return;
//! }
//! let Some(umoci) = need::tool("umoci") else { return };
//! # drop(umoci);
//! ```

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The environment variable that turns a skipped test into a failed one.
pub const MUST_RUN: &str = "DRAUGHT_TESTS_MUST_RUN";

/// The environment variable that names the directory of [`cache_dir`].
pub const CACHE: &str = "DRAUGHT_TEST_CACHE";

/// Where [`cache_dir`] is when [`CACHE`] is not set.
pub const CACHE_DEFAULT: &str = "/var/cache/draught-test";

/// Where tests keep what is expensive to make, such as images and foreign tools.
#[must_use]
pub fn cache_dir() -> PathBuf {
    env::var_os(CACHE).map_or_else(|| PathBuf::from(CACHE_DEFAULT), PathBuf::from)
}

/// Says that the calling test can't run because `what` is missing.
///
/// # Panics
///
/// With `DRAUGHT_TESTS_MUST_RUN=1`.
pub fn skip(what: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(
        env::var_os(MUST_RUN).is_none_or(|value| value.is_empty() || value == "0"),
        "{test} must run here ({MUST_RUN} is set), but {what}"
    );
    say(&format!("SKIPPED: {test}: {what}"));
}

/// Says something to whoever runs the tests, also when the test passes.
pub fn say(words: &str) {
    // Written to the descriptor itself: libtest captures what the print macros print.
    // Without a standard error there is nobody to tell.
    drop(std::io::stderr().write_all(format!("\n{words}\n").as_bytes()));
}

/// Whether we are root; skips if not.
///
/// # Panics
///
/// As [`skip`].
#[must_use]
pub fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("it needs root");
    }
    root
}

/// The path of the program `name`; skips if it is not installed.
///
/// # Panics
///
/// As [`skip`].
#[must_use]
pub fn tool(name: &str) -> Option<PathBuf> {
    let found = find(name);
    if found.is_none() {
        skip(&format!("the program {name} is not installed"));
    }
    found
}

/// The path of the program `name`, or nothing; never skips.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        // Root's tools are often not on a user's path.
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs_err::metadata(file)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Nydus' own programs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Nydus {
    /// `nydus-image`, which makes and checks images.
    pub image: PathBuf,
    /// `nydusd`, which serves them.
    pub nydusd: PathBuf,
}

/// Nydus' own programs, from the cache directory's `nydus/bin`; skips if they are not there.
///
/// # Panics
///
/// As [`skip`].
#[must_use]
pub fn nydus() -> Option<Nydus> {
    let dir = cache_dir().join("nydus/bin");
    let programs = Nydus {
        image: dir.join("nydus-image"),
        nydusd: dir.join("nydusd"),
    };
    if is_executable(&programs.image) && is_executable(&programs.nydusd) {
        return Some(programs);
    }
    skip(&format!(
        "nydus-image and nydusd are not in {}",
        dir.display()
    ));
    None
}

/// Whether the kernel has the filesystem `name` (its module is loaded if need be); skips if not.
///
/// # Panics
///
/// As [`skip`].
#[must_use]
pub fn filesystem(name: &str) -> bool {
    let listed = || {
        fs_err::read_to_string("/proc/filesystems").is_ok_and(|list| {
            list.lines()
                .any(|line| line.split_whitespace().next_back() == Some(name))
        })
    };
    if listed() {
        return true;
    }
    if let Some(modprobe) = find("modprobe") {
        // Whether it worked is what the second look at the list says.
        drop(Command::new(modprobe).args(["-q", name]).status());
    }
    let there = listed();
    if !there {
        skip(&format!("this kernel has no {name}"));
    }
    there
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_there_is_found() {
        assert!(find("sh").is_some());
        assert_eq!(find("there-is-no-such-program"), None);
    }

    #[test]
    fn a_directory_is_no_program() {
        assert!(!is_executable(Path::new("/")));
    }
}
