//! What this machine is: it decides what can be installed and whether a test may be skipped.

use std::path::PathBuf;

use crate::run::{command, succeeds};

/// Facts about the machine that the tests run on.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Whether we may mount and install.
    pub(crate) root: bool,
    /// Whether apt's packages can be installed here.
    pub(crate) debian: bool,
    /// Where what the tests need is kept between runs.
    pub(crate) cache: PathBuf,
}

impl Machine {
    /// Looks at the machine; `DRAUGHT_TEST_CACHE` moves the cache.
    pub(crate) fn look() -> Self {
        let cache = std::env::var_os("DRAUGHT_TEST_CACHE")
            .filter(|path| !path.is_empty())
            .map_or_else(|| PathBuf::from("/var/cache/draught-test"), PathBuf::from);
        Self {
            root: succeeds(&mut command("sh", &["-c", "test \"$(id -u)\" = 0"])),
            debian: succeeds(&mut command(
                "sh",
                &["-c", "test -e /etc/debian_version && command -v apt-get"],
            )),
            cache,
        }
    }

    /// Whether everything that a test may need can be had here, so that no test may be skipped.
    pub(crate) fn complete(&self) -> bool {
        self.root && self.debian
    }
}
