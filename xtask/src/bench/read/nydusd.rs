//! `nydusd`, which serves draught's blobs from a local directory.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use draught_testkit::images::layer_files;
use draught_testkit::need::{self, Nydus};
use draught_testkit::nydus::Served;

use super::contender::{Contender, Kind, Readable};
use crate::run::{command, run, say};

/// `nydusd` with one image.
#[derive(Debug)]
pub(super) struct Nydusd {
    nydus: Nydus,
    bootstrap: PathBuf,
    blobs: PathBuf,
}

impl Nydusd {
    /// Takes the bootstrap out of the converted image in an OCI layout; nothing without `nydusd`.
    pub(super) fn prepare(layout: &Path, scratch: &Path) -> Result<Option<Self>> {
        let Some(nydus) = need::nydus() else {
            return Ok(None);
        };
        let dir = scratch.join("nydusd");
        fs_err::create_dir_all(&dir)?;
        let layers = layer_files(layout);
        let bootstrap = layers.last().context("find the bootstrap")?;
        let mut unpack = command("tar", &["-xzf"]);
        run(unpack.arg(bootstrap).arg("-C").arg(&dir)).context("unpack the bootstrap")?;
        say("nydusd serves the same blobs");
        Ok(Some(Self {
            nydus,
            bootstrap: dir.join("image/image.boot"),
            // A blob's name there is its digest, as nydusd wants it.
            blobs: layout.join("blobs/sha256"),
        }))
    }
}

impl Contender for Nydusd {
    fn name(&self) -> &'static str {
        "nydusd 2.2, local blobs"
    }

    fn kind(&self) -> Kind {
        Kind::Lazy
    }

    fn mount(&self, work: &Path) -> Result<Box<dyn Readable + '_>> {
        let dir = work.join("mount");
        fs_err::create_dir_all(&dir)?;
        let served = self.nydus.serve(&self.bootstrap, &self.blobs, work, &dir)?;
        Ok(Box::new(Mounted { served, dir }))
    }
}

struct Mounted {
    served: Served,
    dir: PathBuf,
}

impl Readable for Mounted {
    fn dir(&self) -> &Path {
        &self.dir
    }

    fn processes(&mut self) -> Result<Vec<u32>> {
        Ok(vec![self.served.process.id()])
    }

    fn wait_until_complete(&self) -> Result<()> {
        // It writes what it decoded to its cache in the background; nothing tells when it is done,
        // but that it does nothing any more.
        super::passes::wait_until_idle(self.served.process.id())
    }

    fn mount_again(&mut self) -> Result<Option<f64>> {
        Ok(None)
    }
}
