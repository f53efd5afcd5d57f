//! eStargz images, as its own tool makes them of an image in containerd.

use std::path::Path;
use std::process::Command;

use crate::{Containerd, Scratch, need, process};

const FROM: &str = "localhost/draught-test:from";
const TO: &str = "localhost/draught-test:to";

/// A containerd with `ctr-remote`, which converts.
#[derive(Debug)]
pub struct Estargz {
    containerd: Containerd,
}

impl Estargz {
    /// Starts containerd; skips without root or the programs.
    ///
    /// # Panics
    ///
    /// As [`need::skip`].
    #[must_use]
    pub fn start() -> Option<Self> {
        need::tool("ctr-remote")?;
        let containerd = Containerd::start(&[])?;
        Some(Self { containerd })
    }

    /// Converts the image of an OCI layout with these options of `ctr-remote images convert`, and pushes it to
    /// `reference`, in a registry without TLS.
    ///
    /// # Panics
    ///
    /// If something fails.
    #[track_caller]
    pub fn convert(&self, layout: &Path, options: &[&str], reference: &str) {
        let scratch = Scratch::new();
        let archive = scratch.join("layout.tar");
        let mut pack = Command::new("tar");
        pack.arg("-cf").arg(&archive).arg("-C").arg(layout).arg(".");
        process::run(&mut pack);
        let mut import = self.containerd.ctr();
        import.args(["images", "import", "--no-unpack", "--index-name", FROM]);
        process::run(import.arg(&archive));
        let mut convert = self.containerd.client("ctr-remote");
        convert.args(["images", "convert", "--estargz", "--oci"]);
        process::run(convert.args(options).args([FROM, TO]));
        let mut push = self.containerd.ctr();
        process::run(push.args(["images", "push", "--plain-http", reference, TO]));
        let mut remove = self.containerd.ctr();
        process::run(remove.args(["images", "remove", "--sync", FROM, TO]));
    }
}
