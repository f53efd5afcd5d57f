//! Programs that are started, each in an image of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::bench::image;
use crate::run::command;

/// A program.
#[derive(Debug)]
pub(super) struct Program {
    /// Its name in tables.
    pub(super) name: &'static str,
    /// The Debian packages that bring it.
    packages: &'static str,
    /// What is run: a path in the image and its arguments.
    argv: &'static [&'static str],
}

/// Python, with what a web service would import.
pub(super) const PYTHON: Program = Program {
    name: "python3",
    packages: "python3",
    argv: &[
        "/usr/bin/python3",
        "-c",
        "import json, urllib.request, asyncio, sqlite3, email, http.client, unittest, decimal, \
         xml.etree.ElementTree; print('started')",
    ],
};

/// Node, likewise.
pub(super) const NODE: Program = Program {
    name: "node",
    packages: "nodejs",
    argv: &[
        "/usr/bin/node",
        "-e",
        "require('http'); require('crypto'); require('zlib'); require('fs'); console.log('started')",
    ],
};

/// A compiler and linker, and what they make.
pub(super) const GCC: Program = Program {
    name: "gcc",
    packages: "gcc,libc6-dev",
    argv: &[
        "/bin/sh",
        "-c",
        "printf '#include <stdio.h>\\nint main(void) { puts(\"started\"); return 0; }\\n' >/tmp/hello.c \
         && gcc -o /tmp/hello /tmp/hello.c && /tmp/hello",
    ],
};

impl Program {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [PYTHON, NODE, GCC];

    /// The image's only layer, which is made if it is not there.
    pub(super) fn archive(&self) -> Result<PathBuf> {
        let include = format!("--include={}", self.packages);
        let recipe = ["--quiet", "--variant=minbase", &include, "bookworm"];
        image::bootstrapped(&format!("start-{}", self.name), &recipe)
    }

    /// Runs it with `root` as its root.
    pub(super) fn within(&self, root: &Path) -> Command {
        let mut command = command("chroot", &[]);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .arg(root)
            .args(self.argv);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_runs_in_its_root() {
        let command = PYTHON.within(Path::new("/mnt/root"));
        let words = crate::run::shown(&command);
        assert!(
            words.starts_with("chroot /mnt/root /usr/bin/python3 -c import json"),
            "{words}"
        );
    }
}
