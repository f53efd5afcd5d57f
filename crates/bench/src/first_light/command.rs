//! The measurement, from images to a page of tables.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use draught_testkit::{Scratch, need};

use super::images::{Tree, base, large};
use super::program::Program;
use super::{convert, read};
use crate::machine;

/// Where the page goes, below the workspace.
const PAGE: &str = "docs/benchmarks.md";

/// What may be chosen.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The program to measure
    #[arg(long, value_name = "FILE", default_value = "target/release/draught")]
    program: PathBuf,

    /// How often each is measured: the median counts
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,

    /// Only the smaller of the two trees
    #[arg(long)]
    small: bool,

    /// Where the tables are written to
    #[arg(long, value_name = "FILE", default_value = PAGE)]
    out: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !need::root() {
        bail!("measure: mounting and dropping caches need root");
    }
    let program =
        fs_err::canonicalize(&args.program).context("find the program: cargo build --release")?;
    let mut trees = vec![base()?];
    if !args.small {
        trees.push(large()?);
    }
    let mut page = head(&trees);
    for tree in &trees {
        need::say(&format!("converting {}", tree.name));
        page += &format!("\n## Converting {}\n\n", tree.title);
        page += &convert::measure(&program, tree, args.runs)?;
    }
    for tree in &trees {
        need::say(&format!("reading {}", tree.name));
        page += &format!("\n## Reading {}\n\n", tree.title);
        let scratch = Scratch::new();
        let program = Program::new(&program, &scratch);
        page += &read::measure(&program, &scratch, tree, args.runs)?;
    }
    fs_err::write(&args.out, page)?;
    need::say(&format!("written to {}", args.out.display()));
    Ok(())
}

fn head(trees: &[Tree]) -> String {
    let mut text = format!(
        "# Benchmarks\n\nWritten by `cargo xtask bench first-light`. {}. Medians; numbers vary by a \
         third from day to day, so compare within a table.\n\n",
        machine::describe()
    );
    for tree in trees {
        text += &format!("* **{}**: {}.\n", tree.name, tree.title);
    }
    text + "\nPeers: nydus 2.2.0 (`nydus-image`, `nydusd` over FUSE with verification on), zstd, \
            `ctr-remote image convert --estargz` with the containerd that it needs running, ext4 (the \
            unpacked tree), EROFS (an image of `mkfs.erofs`, mounted from a file).\n"
}
