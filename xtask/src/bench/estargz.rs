//! eStargz, as its own tool makes it from an image in containerd.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use draught_testkit::{Containerd, need};
use serde_json::Value;

use super::measure::{self, Cost};
use crate::run::{command, run, say};

const FROM: &str = "localhost/bench:from";
const TO: &str = "localhost/bench:to";

/// A containerd with the image in it.
#[derive(Debug)]
pub(crate) struct Estargz {
    containerd: Containerd,
    log: PathBuf,
}

impl Estargz {
    /// Starts containerd and imports the image of an OCI layout; nothing where the programs are
    /// missing.
    pub(crate) fn start(layout: &Path, scratch: &Path) -> Result<Option<Self>> {
        if ["containerd", "ctr", "ctr-remote"]
            .iter()
            .any(|it| need::find(it).is_none())
        {
            say("without eStargz: containerd or stargz-snapshotter is not installed");
            return Ok(None);
        }
        let Some(containerd) = Containerd::start(&[]) else {
            return Ok(None);
        };
        let archive = scratch.join("estargz-from.tar");
        let mut pack = command("tar", &["-cf"]);
        run(pack.arg(&archive).arg("-C").arg(layout).arg("."))?;
        let mut import = containerd.ctr();
        import.args(["images", "import", "--no-unpack", "--index-name", FROM]);
        measure::output(import.arg(&archive)).context("import the image into containerd")?;
        fs_err::remove_file(&archive)?;
        let log = scratch.join("ctr-remote.log");
        Ok(Some(Self { containerd, log }))
    }

    /// Converts the image: what that cost the client, which does the work, and the bytes of the
    /// layers. The new image is removed again.
    pub(crate) fn convert(&self) -> Result<(Cost, u64)> {
        let mut convert = self.containerd.client("ctr-remote");
        convert.args(["images", "convert", "--estargz", "--oci", FROM, TO]);
        let cost = measure::run(&mut convert, &self.log)?;
        let bytes = self.layer_bytes()?;
        let mut remove = self.containerd.ctr();
        measure::output(remove.args(["images", "remove", "--sync", TO]))?;
        Ok((cost, bytes))
    }

    fn layer_bytes(&self) -> Result<u64> {
        let images = measure::output(self.containerd.ctr().args(["images", "list"]))?;
        let image = images.lines().find(|line| line.starts_with(TO));
        let digest = image
            .and_then(|line| line.split_whitespace().nth(2))
            .context("find the converted image")?;
        let index = self.document(digest)?;
        let manifest = index.pointer("/manifests/0/digest").and_then(Value::as_str);
        let manifest = self.document(manifest.context("find the manifest")?)?;
        let layers = manifest.pointer("/layers").and_then(Value::as_array);
        let sizes = layers.context("find the layers")?.iter();
        Ok(sizes.filter_map(|layer| layer.get("size")?.as_u64()).sum())
    }

    fn document(&self, digest: &str) -> Result<Value> {
        let mut get: Command = self.containerd.ctr();
        let text = measure::output(get.args(["content", "get", digest]))?;
        Ok(serde_json::from_str(&text)?)
    }
}
