//! draught, with the image in a registry or in a local OCI layout.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::contender::{Contender, Kind, Readable};
use crate::bench::draught::Draught;
use crate::bench::node::Node;

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
        let mut node = Node::new(self.draught, &work.join("root"))?;
        let dir = work.join("mount");
        node.mount(&self.reference, &dir)?;
        let reference = self.reference.clone();
        Ok(Box::new(Mounted {
            node,
            dir,
            reference,
        }))
    }
}

struct Mounted<'a> {
    node: Node<'a>,
    dir: PathBuf,
    reference: String,
}

impl Readable for Mounted<'_> {
    fn dir(&self) -> &Path {
        &self.dir
    }

    fn processes(&mut self) -> Result<Vec<u32>> {
        Ok(self.node.processes()?.to_vec())
    }

    fn wait_until_complete(&self) -> Result<()> {
        self.node.wait_until_complete(&self.dir, COMPLETE_MAX)
    }

    fn mount_again(&mut self) -> Result<Option<f64>> {
        self.node.unmount(&self.dir)?;
        let begun = Instant::now();
        self.node.mount(&self.reference, &self.dir)?;
        Ok(Some(begun.elapsed().as_secs_f64()))
    }
}
