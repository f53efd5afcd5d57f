//! A language runtime that this machine has, to be the demonstration's program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::elf;

/// A program, all that it needs, and how to run it.
#[derive(Debug)]
pub(crate) struct Runtime {
    /// For people: "Python 3.11.2".
    pub(crate) name: String,
    /// What is executed, program first.
    pub(crate) command: Vec<String>,
    /// Files and directories that it needs besides libraries; directories with all they hold.
    pub(crate) parts: Vec<PathBuf>,
    /// The loader and the libraries.
    pub(crate) libraries: BTreeSet<PathBuf>,
}

/// Directory names that a standard library has but no program needs: other people's packages and
/// the library's own tests.
pub(crate) const LEFT_OUT: &[&str] =
    &["dist-packages", "site-packages", "test", "tests", "idlelib"];

/// A kind of runtime: how to find its files, and what to have it do.
struct Kind {
    name: &'static str,
    program: &'static str,
    /// Prints the version on the first line, then directories, one a line.
    ask: &'static [&'static str],
    /// Prints a line as soon as it has loaded what a small service would load.
    greet: &'static [&'static str],
}

const KINDS: &[Kind] = &[
    Kind {
        name: "Python",
        program: "python3",
        ask: &[
            "-I",
            "-c",
            "import sys, sysconfig; print(sys.version.split()[0]); \
             [print(sysconfig.get_paths()[key]) for key in ('stdlib', 'platstdlib')]",
        ],
        greet: &[
            "-I",
            "-c",
            "import json, hashlib, decimal, email.message, http.client, logging, sys; \
             print('hello from Python', sys.version.split()[0], flush=True)",
        ],
    },
    Kind {
        name: "Perl",
        program: "perl",
        ask: &["-e", "printf \"%vd\\n\", $^V; print \"$_\\n\" for @INC"],
        greet: &[
            "-e",
            "use strict; use POSIX; use File::Find; use Data::Dumper; $| = 1; \
             printf \"hello from Perl %vd\\n\", $^V",
        ],
    },
];

impl Runtime {
    /// The best runtime of this machine: Python, Perl, or at least the shell.
    pub(crate) fn find() -> Result<Self> {
        for kind in KINDS {
            for program in candidates(kind.program) {
                if let Some(found) = Self::complete(kind, &program)? {
                    return Ok(found);
                }
            }
        }
        let shell = Path::new("/bin/sh");
        if !shell.exists() {
            bail!("find a program for the image: neither Python, Perl nor /bin/sh is here");
        }
        Ok(Self {
            name: "sh".to_owned(),
            command: ["/bin/sh", "-c", "echo hello from sh"]
                .map(str::to_owned)
                .to_vec(),
            parts: vec![shell.to_owned()],
            libraries: libraries_of(shell, &[])?,
        })
    }

    /// A runtime with all its parts, if this program is one and answers.
    fn complete(kind: &Kind, program: &Path) -> Result<Option<Self>> {
        let asked = Command::new(program)
            .args(kind.ask)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        let Some(answer) = asked.ok().filter(|answer| answer.status.success()) else {
            return Ok(None);
        };
        let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
        let mut lines = answer.lines();
        let version = lines.next().unwrap_or_default();
        let directories: BTreeSet<PathBuf> = lines
            .map(PathBuf::from)
            .filter(|path| path.is_absolute() && path.is_dir())
            .collect();
        if version.is_empty() || directories.is_empty() {
            return Ok(None);
        }
        let Some(path) = program.to_str() else {
            return Ok(None);
        };
        let directories: Vec<PathBuf> = directories.into_iter().collect();
        let libraries = libraries_of(program, &directories)?;
        let mut parts = vec![program.to_owned()];
        parts.extend(directories);
        let greet = kind.greet.iter().map(|&word| word.to_owned());
        Ok(Some(Self {
            name: format!("{} {version}", kind.name),
            command: std::iter::once(path.to_owned()).chain(greet).collect(),
            parts,
            libraries,
        }))
    }
}

/// Where a program may be: the system's own first, for it is a program, while what stands earlier
/// in PATH may be a script that chooses one.
fn candidates(program: &str) -> Vec<PathBuf> {
    let mut directories = vec![PathBuf::from("/usr/bin")];
    if let Some(path) = std::env::var_os("PATH") {
        directories.extend(std::env::split_paths(&path));
    }
    let programs = directories
        .into_iter()
        .map(|directory| directory.join(program));
    programs.filter(|path| elf::is_program(path)).collect()
}

/// The loader and the libraries of a program and of the loadable modules below some directories.
fn libraries_of(program: &Path, directories: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let Some(loader) = elf::interpreter(program)? else {
        return Ok(found);
    };
    elf::libraries(&loader, program, &mut found)?;
    let mut pending = directories.to_vec();
    while let Some(directory) = pending.pop() {
        // What cannot be read cannot be needed.
        let Ok(entries) = fs_err::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let is_directory = entry.file_type().is_ok_and(|it| it.is_dir());
            if is_directory && !LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
                pending.push(path);
            } else if path.extension().is_some_and(|it| it == "so") && elf::is_program(&path) {
                elf::libraries(&loader, &path, &mut found)?;
            }
        }
    }
    found.insert(loader);
    Ok(found)
}
