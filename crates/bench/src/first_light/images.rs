//! The trees that are measured, made once and kept.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use draught_testkit::images::{Layer, Packing, base_tar, cached, write_layout};
use draught_testkit::process;

use crate::measure::bytes_of;
use crate::table::megabytes;

/// Packages on top of the smallest system that make a tree of about a gigabyte: interpreters,
/// a compiler, and what comes with them.
const LARGE: &str = "python3,python3-numpy,nodejs,g++,clang,git,golang-go";

/// A tree in every form that a measurement starts from.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) name: &'static str,
    /// With its size.
    pub(crate) title: String,
    /// The archive.
    pub(crate) tar: PathBuf,
    /// The archive unpacked.
    pub(crate) rootfs: PathBuf,
    /// An OCI layout with the archive as its only layer.
    pub(crate) layout_tar: PathBuf,
    /// The same, gzipped.
    pub(crate) layout_gzip: PathBuf,
}

/// The smallest Debian.
pub(crate) fn base() -> Result<Tree> {
    let tar = base_tar().context("make the base image")?;
    Tree::of("A", "Debian minbase", tar)
}

/// A large one.
pub(crate) fn large() -> Result<Tree> {
    let recipe = format!("mmdebstrap minbase bookworm {LARGE}");
    let dir = cached("bench-large", recipe.as_bytes(), |dir| {
        let mut make = Command::new("mmdebstrap");
        make.args(["--quiet", "--variant=minbase", "--format=tar"]);
        make.arg(format!("--include={LARGE}"))
            .arg("bookworm")
            .arg(dir.join("large.tar"));
        process::run(&mut make);
        Ok(())
    })?;
    Tree::of(
        "B",
        "Debian with Python, Node, Go and compilers",
        dir.join("large.tar"),
    )
}

impl Tree {
    fn of(name: &'static str, what: &str, tar: PathBuf) -> Result<Self> {
        let recipe = format!("{} {}", tar.display(), fs_err::metadata(&tar)?.len());
        let dir = cached("bench-tree", recipe.as_bytes(), |dir| {
            let rootfs = dir.join("rootfs");
            fs_err::create_dir(&rootfs)?;
            process::run(
                Command::new("tar")
                    .arg("-C")
                    .arg(&rootfs)
                    .arg("-xf")
                    .arg(&tar),
            );
            layout(&dir.join("tar"), &tar, Packing::Tar)?;
            layout(&dir.join("gzip"), &tar, Packing::Gzip)
        })?;
        let files = process::run(Command::new("tar").arg("-tf").arg(&tar))
            .lines()
            .count();
        let bytes = megabytes(bytes_of(&tar)?);
        Ok(Self {
            name,
            title: format!("{what} ({files} entries, tar {bytes})"),
            rootfs: dir.join("rootfs"),
            layout_tar: dir.join("tar"),
            layout_gzip: dir.join("gzip"),
            tar,
        })
    }
}

fn layout(dir: &Path, tar: &Path, packing: Packing) -> Result<()> {
    let archive = Box::new(fs_err::File::open(tar)?);
    fs_err::create_dir(dir)?;
    write_layout(dir, vec![Layer { archive, packing }])
}
