//! The program that is measured, as its users get it: a release build.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use draught_testkit::Process;
use serde_json::Value;

use super::{measure, release};

/// How long the registry may take until it listens, on a busy machine.
const START_MAX: Duration = Duration::from_secs(30);

/// The program.
#[derive(Debug, Clone)]
pub(crate) struct Draught {
    binary: PathBuf,
}

impl Draught {
    /// Builds it.
    pub(crate) fn build() -> Result<Self> {
        Self::at(&release::build("draught")?)
    }

    /// One that is there already.
    pub(crate) fn at(binary: &Path) -> Result<Self> {
        let binary = fs_err::canonicalize(binary)?;
        Ok(Self { binary })
    }

    /// A command with all its state in `root`.
    pub(crate) fn command(&self, root: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(root);
        command.args(["--log", "error", "--progress", "none", "--format", "json"]);
        command.args(args);
        command
    }

    /// The file that is run.
    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// What `draught convert` does, with its temporary files in `scratch`.
    pub(crate) fn convert(&self, scratch: &Path, from: &str, to: &str, args: &[&str]) -> Command {
        let mut command = self.command(scratch, &["convert", "--scratch"]);
        command.arg(scratch).args(args).args([from, to]);
        command
    }

    /// Converts an image and gives the bytes that it takes in a registry: blobs and metadata.
    pub(crate) fn converted(
        &self,
        scratch: &Path,
        from: &str,
        to: &str,
        args: &[&str],
    ) -> Result<u64> {
        let said = measure::output(&mut self.convert(scratch, from, to, args))?;
        let said = serde_json::from_str(&said)?;
        stored_bytes(&said).with_context(|| format!("find the image's size in {said}"))
    }
}

/// The stored bytes of the first image that `draught convert` tells of.
fn stored_bytes(said: &Value) -> Option<u64> {
    let image = said.get("images")?.get(0)?;
    let blobs = image.get("blobs")?.as_array()?.iter();
    let blobs: Option<u64> = blobs.map(|blob| blob.get("bytes")?.as_u64()).sum();
    Some(blobs? + image.get("bootstrap_layer_bytes")?.as_u64()?)
}

/// The embedded registry, as a process of its own.
#[derive(Debug)]
pub(crate) struct Registry {
    addr: SocketAddr,
    _process: Process,
}

impl Registry {
    /// Serves what is in `root`.
    pub(crate) fn start(draught: &Draught, root: &Path) -> Result<Self> {
        fs_err::create_dir_all(root)?;
        let mut command = draught.command(root, &["registry", "--listen", "127.0.0.1:0"]);
        let mut process = Process::start(&mut command, &root.join("registry.log"))?;
        let mut addr = None;
        let listening = |log: &str| {
            let said: Value = serde_json::from_str(log).ok()?;
            said.get("addr")?.as_str()?.parse().ok()
        };
        // A second borrow of the process is not to be had while it waits for itself.
        let log = root.join("registry.log");
        process.wait_until(START_MAX, || {
            addr = listening(&fs_err::read_to_string(&log).unwrap_or_default());
            addr.is_some()
        })?;
        Ok(Self {
            addr: addr.context("find the registry's address")?,
            _process: process,
        })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The reference of an image in it.
    pub(crate) fn reference(&self, name: &str) -> String {
        format!("{}/{name}:latest", self.addr)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_image_takes_what_its_blobs_and_its_metadata_take() {
        let blobs = json!([{"bytes": 5}, {"bytes": 6}]);
        let said = json!({"images": [{"blobs": blobs, "bootstrap_layer_bytes": 7}]});
        assert_eq!(stored_bytes(&said), Some(18));
        assert_eq!(stored_bytes(&json!({"images": []})), None);
    }
}
