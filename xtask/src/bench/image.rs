//! The images that are measured: real ones, made once and kept.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use draught_testkit::images::{Layer, Packing, cached, layer_files, write_layout};
use draught_testkit::need;

use crate::run::{command, run, say};

/// How the larger image is made: Python with its largest libraries, Node and a compiler.
const RUNTIMES: [&str; 4] = [
    "--quiet",
    "--variant=minbase",
    "--include=python3,python3-scipy,nodejs,g++",
    "bookworm",
];

/// The base image, where `cargo xtask test` has not put one already.
const BASE: [&str; 3] = ["--quiet", "--variant=minbase", "bookworm"];

/// Which image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum Which {
    /// Debian minbase, 170 MB
    A,
    /// Debian with Python, SciPy, Node and a C++ compiler, 1 GB
    B,
}

impl Which {
    /// All of them, the smallest first.
    pub(crate) const ALL: [Self; 2] = [Self::A, Self::B];

    /// Its letter, and what it is.
    pub(crate) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::A => ("A", "Debian bookworm minbase"),
            Self::B => ("B", "Debian bookworm with Python, SciPy, Node and g++"),
        }
    }

    /// Its layer as a tar archive, which is made if it is not there.
    pub(crate) fn archive(self) -> Result<PathBuf> {
        let base = need::cache_dir().join("base.tar");
        match self {
            Self::A if base.is_file() => Ok(base),
            Self::A => bootstrapped("base", &BASE),
            Self::B => bootstrapped("runtimes", &RUNTIMES),
        }
    }
}

/// An image of one layer, in all the forms that are converted.
#[derive(Debug)]
pub(crate) struct Image {
    /// Which one.
    pub(crate) which: Which,
    /// The layer as a tar archive.
    pub(crate) archive: PathBuf,
    /// The layer as a gzipped tar archive.
    pub(crate) gzipped: PathBuf,
    /// An OCI layout with the layer not compressed.
    pub(crate) plain_layout: PathBuf,
    /// An OCI layout with the gzipped layer.
    pub(crate) gzip_layout: PathBuf,
    /// The unpacked tree.
    pub(crate) tree: PathBuf,
}

impl Image {
    /// Makes what the cache does not have, and unpacks the tree into `scratch`.
    pub(crate) fn prepare(which: Which, scratch: &Path) -> Result<Self> {
        let archive = which.archive()?;
        let (plain_layout, gzip_layout) = layouts(&archive)?;
        let gzipped = layer_files(&gzip_layout).pop().context("find the layer")?;
        let tree = scratch.join("tree");
        fs_err::create_dir_all(&tree)?;
        unpack(&archive, &tree)?;
        Ok(Self {
            which,
            archive,
            gzipped,
            plain_layout,
            gzip_layout,
            tree,
        })
    }
}

/// OCI layouts with an archive as the only layer: not compressed, and gzipped. They are made once.
pub(crate) fn layouts(archive: &Path) -> Result<(PathBuf, PathBuf)> {
    let meta = fs_err::metadata(archive)?;
    let identity = format!(
        "{}, {} bytes, {} s",
        archive.display(),
        meta.size(),
        meta.mtime()
    );
    let plain_layout = cached("bench-tar", identity.as_bytes(), |dir| {
        let archive = Box::new(fs_err::File::open(archive)?);
        let packing = Packing::Tar;
        write_layout(dir, vec![Layer { archive, packing }])
    })?;
    // As builders compress: skopeo has the compressor and the level that they have.
    let gzip_layout = cached("bench-gzip", identity.as_bytes(), |dir| {
        let from = oci(&plain_layout);
        run(command("skopeo", &["copy", "--quiet", "--insecure-policy"])
            .args([from, oci(dir)])
            .stdout(std::io::stderr()))
    })?;
    Ok((plain_layout, gzip_layout))
}

/// Unpacks an archive into a directory, with everything that root can restore.
pub(crate) fn unpack(archive: &Path, dir: &Path) -> Result<()> {
    let mut unpack = command("tar", &["--xattrs", "--xattrs-include=*"]);
    unpack.args(["--numeric-owner", "-xpf"]).arg(archive);
    run(unpack.arg("-C").arg(dir)).context("unpack the image")
}

/// The location of an OCI layout's image, as skopeo and draught write it.
pub(crate) fn oci(dir: &Path) -> String {
    format!("oci:{}:latest", dir.display())
}

/// An archive that mmdebstrap makes by this recipe, once.
pub(crate) fn bootstrapped(name: &str, recipe: &[&str]) -> Result<PathBuf> {
    let made = cached(name, recipe.join(" ").as_bytes(), |dir| {
        say(&format!(
            "mmdebstrap {}, some minutes, once",
            recipe.join(" ")
        ));
        let mut make = command("mmdebstrap", recipe);
        run(make.arg(dir.join("rootfs.tar")).stdout(std::io::stderr()))
    })?;
    Ok(made.join("rootfs.tar"))
}
