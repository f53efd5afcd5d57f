//! draught, with the image in a registry or in a local OCI layout.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::contender::{Contender, Kind, Readable};
use crate::bench::draught::{Daemon, Draught};

/// How long the daemon may take to note that everything is there.
const COMPLETE_MAX: Duration = Duration::from_secs(10);

/// draught with one image.
#[derive(Debug)]
pub(super) struct Lazily<'a> {
    pub(super) draught: &'a Draught,
    pub(super) name: &'static str,
    pub(super) reference: String,
}

impl Contender for Lazily<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn kind(&self) -> Kind {
        Kind::Lazy
    }

    fn mount(&self, work: &Path) -> Result<Box<dyn Readable + '_>> {
        let daemon = Daemon::new(self.draught, &work.join("root"), &work.join("mount"))?;
        daemon.mount(&self.reference)?;
        let reference = self.reference.clone();
        Ok(Box::new(Mounted { daemon, reference }))
    }
}

struct Mounted<'a> {
    daemon: Daemon<'a>,
    reference: String,
}

impl Readable for Mounted<'_> {
    fn dir(&self) -> &Path {
        self.daemon.dir()
    }

    fn processes(&mut self) -> Result<Vec<u32>> {
        Ok(self.daemon.processes()?.to_vec())
    }

    fn wait_until_complete(&self) -> Result<()> {
        let begun = Instant::now();
        while !self.daemon.is_complete()? {
            if begun.elapsed() > COMPLETE_MAX {
                bail!("get everything: all files were read, but `draught ps` says some is missing");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn mount_again(&mut self) -> Result<Option<f64>> {
        self.daemon.unmount()?;
        let begun = Instant::now();
        self.daemon.mount(&self.reference)?;
        Ok(Some(begun.elapsed().as_secs_f64()))
    }
}
