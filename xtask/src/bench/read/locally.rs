//! What is there already: the unpacked tree, and a local EROFS image of it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use draught_testkit::{MountGuard, erofs, need};

use super::contender::{Contender, Kind, Readable};
use crate::run::{command, run, say};

/// The unpacked tree.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// The type of its filesystem.
    pub(super) filesystem: String,
    pub(super) tree: PathBuf,
}

impl Contender for Unpacked {
    fn name(&self) -> &str {
        &self.filesystem
    }

    fn kind(&self) -> Kind {
        Kind::Directory
    }

    fn mount(&self, _: &Path) -> Result<Box<dyn Readable + '_>> {
        let (dir, mount) = (self.tree.clone(), None);
        Ok(Box::new(Local { dir, _mount: mount }))
    }
}

/// An uncompressed EROFS image of the tree, mounted from its file without a loop device.
#[derive(Debug)]
pub(super) struct LocalErofs {
    image: PathBuf,
}

impl LocalErofs {
    /// Makes the image of `tree` in `scratch`; nothing without `mkfs.erofs`.
    pub(super) fn make(tree: &Path, scratch: &Path) -> Result<Option<Self>> {
        let Some(mkfs) = need::find("mkfs.erofs") else {
            say("without a local EROFS: mkfs.erofs is not installed");
            return Ok(None);
        };
        let image = scratch.join("local.erofs");
        let mut make = command(&mkfs.to_string_lossy(), &["--quiet"]);
        make.arg(&image).arg(tree).stdout(std::io::stderr());
        run(&mut make).context("make a local EROFS image")?;
        Ok(Some(Self { image }))
    }
}

impl Contender for LocalErofs {
    fn name(&self) -> &'static str {
        "mkfs.erofs, local"
    }

    fn kind(&self) -> Kind {
        Kind::Local
    }

    fn mount(&self, work: &Path) -> Result<Box<dyn Readable + '_>> {
        let dir = work.join("mount");
        fs_err::create_dir_all(&dir)?;
        let mount = Some(erofs::mount(&self.image, &[], &dir)?);
        Ok(Box::new(Local { dir, _mount: mount }))
    }
}

pub(super) struct Local {
    dir: PathBuf,
    _mount: Option<MountGuard>,
}

impl Local {
    pub(super) fn mounted(dir: PathBuf, mount: MountGuard) -> Self {
        Self {
            dir,
            _mount: Some(mount),
        }
    }
}

impl Readable for Local {
    fn dir(&self) -> &Path {
        &self.dir
    }

    fn processes(&mut self) -> Result<Vec<u32>> {
        Ok(Vec::new())
    }

    fn wait_until_complete(&self) -> Result<()> {
        Ok(())
    }

    fn mount_again(&mut self) -> Result<Option<f64>> {
        Ok(None)
    }
}
