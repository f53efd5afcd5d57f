//! Nydus' own converter.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use draught_testkit::need;

use super::contender::Input;
use crate::bench::measure;

/// The program `nydus-image`.
#[derive(Debug, Clone)]
pub(crate) struct NydusImage {
    program: PathBuf,
    name: String,
}

impl NydusImage {
    /// The one that tests use; nothing where it is not installed.
    pub(crate) fn installed() -> Option<Self> {
        let nydus = need::nydus()?;
        Some(Self {
            program: nydus.image,
            // It was built without knowing its own version.
            name: "nydus-image 2.2".to_owned(),
        })
    }

    /// Another one, under the version that it says it has.
    pub(crate) fn at(program: &Path) -> Result<Self> {
        let program = fs_err::canonicalize(program)?;
        let said = measure::output(Command::new(&program).arg("--version"))?;
        let version = version(&said).unwrap_or("of an unknown version");
        let name = format!("nydus-image {version}");
        Ok(Self { program, name })
    }

    /// Its name in tables.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Packs a source; where to is left to the caller.
    pub(crate) fn create(&self, input: Input, source: &Path) -> Command {
        let kind = match input {
            Input::Tar => "tar-rafs",
            Input::Gzip => "targz-rafs",
            Input::Directory => "dir-rafs",
        };
        let mut command = Command::new(&self.program);
        command.args(["create", "--log-level", "warn", "--fs-version", "6"]);
        command.args(["--type", kind]).arg(source);
        command
    }

    /// Merges the bootstraps of layers, lowest first, into `to`.
    pub(crate) fn merge(&self, bootstraps: &[PathBuf], to: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["merge", "--log-level", "warn", "--bootstrap"]);
        command.arg(to).args(bootstraps);
        command
    }
}

/// The version in what `--version` prints, without its `v`.
fn version(said: &str) -> Option<&str> {
    let line = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("Version:"))?;
    line.trim().strip_prefix('v')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_if_the_program_knows_it() {
        assert_eq!(
            version(" Version: \tv2.4.2\nGit Commit: 3\n"),
            Some("2.4.2")
        );
        assert_eq!(version(" Version: \tunknown\nGit Commit: \n"), None);
        assert_eq!(version(""), None);
    }
}
