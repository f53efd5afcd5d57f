//! What every part of the benchmark is given.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::bench::draught::{Draught, Registry};
use crate::bench::interrupt::Interrupt;
use crate::bench::node::Node;

/// The program, a directory, and how often to measure.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) draught: &'a Draught,
    /// An empty directory for this part alone.
    pub(crate) scratch: &'a Path,
    pub(crate) runs: u32,
    pub(crate) interrupt: &'a Interrupt,
    /// The filesystem that `scratch` is on.
    pub(crate) filesystem: &'a str,
}

impl<'a> Bench<'a> {
    /// The registry of this part.
    pub(crate) fn registry(&self) -> Result<Registry> {
        Registry::start(self.draught, &self.scratch.join("registry"))
    }

    /// Converts an image, as a first look before [`Interrupt`] ends us; its stored bytes.
    pub(crate) fn convert(&self, from: &str, to: &str, args: &[&str]) -> Result<u64> {
        self.interrupt.check()?;
        self.draught.converted(self.scratch, from, to, args)
    }

    /// A directory that is not there yet.
    pub(crate) fn fresh(&self, name: &str) -> Result<PathBuf> {
        self.interrupt.check()?;
        let dir = self.scratch.join(name);
        if dir.exists() {
            // What was mounted there ended with its node.
            fs_err::remove_dir_all(&dir)?;
        }
        fs_err::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// A node with its daemon running and nothing in its store, in a fresh directory.
    pub(crate) fn node(
        &self,
        work: &Path,
        env: Option<(&'static str, &'static str)>,
    ) -> Result<Node<'a>> {
        let mut node = Node::new(self.draught, &work.join("root"))?;
        if let Some((name, value)) = env {
            node.env(name, value);
        }
        node.start()?;
        Ok(node)
    }
}
