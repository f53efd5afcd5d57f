//! Merging the layers of an image of many inodes.

use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::Result;
use draught_testkit::images::{Layer, Packing, write_layout};

use super::said;
use crate::bench::convert::{Input, NydusImage};
use crate::bench::image::oci;
use crate::bench::measure::{self, Cost};
use crate::bench::results::number;
use crate::bench::suite::bar::Bar;
use crate::bench::suite::bench::Bench;
use crate::bench::suite::generated;
use crate::bench::suite::report::Report;
use crate::bench::suite::sheet::{Column, Sheet};
use crate::bench::suite::unit::Unit;
use crate::run::say;

const LAYERS: u32 = 10;

/// Files of each layer: with their directories 44,000 inodes.
const FILES: u32 = 43_564;

/// Wall time over that of nydus-image: five times as fast.
const OVER_NYDUS_MOST: f64 = 1.0 / 5.0;

const OURS: &str = "draught convert, all layers in a cache";

const COLUMNS: &[Column] = &[
    Column("wall_s", "wall", Unit::Seconds),
    Column("cpu_s", "CPU", Unit::Seconds),
    Column("peak_rss_bytes", "peak RSS", Unit::Bytes),
    Column("inode_rss_bytes", "… bytes an inode", Unit::Count),
];

/// Merges with both.
pub(super) fn measure(bench: &Bench<'_>, nydus: Option<&NydusImage>) -> Result<Report> {
    let dir = bench.fresh("layers")?;
    say("generating layers");
    let archives = (0..LAYERS).map(|layer| archive(&dir, layer));
    let archives: Vec<PathBuf> = archives.collect::<Result<_>>()?;
    let layers = archives.iter().map(|archive| {
        let archive = Box::new(fs_err::File::open(archive)?);
        let packing = Packing::Tar;
        Ok(Layer { archive, packing })
    });
    let layout = dir.join("layout");
    write_layout(&layout, layers.collect::<Result<Vec<_>>>()?)?;
    let mut theirs = Vec::new();
    if let Some(nydus) = nydus {
        say(&format!("{}: making the layers' bootstraps", nydus.name()));
        for archive in &archives {
            bench.interrupt.check()?;
            theirs.push(bootstrap(nydus, archive, &dir)?);
        }
    }
    let to = format!("oci:{}:latest", dir.join("converted").display());
    let cache = format!("--cache=dir:{}", dir.join("cache").display());
    // The destination has the blobs already: what is left is to read, to merge and to write metadata.
    let convert = || {
        let args = ["--force", &cache];
        let mut command = bench.draught.convert(&dir, &oci(&layout), &to, &args);
        said::convert(&mut command, &dir.join("convert.log"))
    };
    say("filling the cache");
    convert()?;

    let inodes = number(u64::from(LAYERS * generated::inodes(FILES)));
    let title = format!("{LAYERS} layers, {inodes} inodes, each file small and unlike all others");
    let mut sheet = Sheet::new(title, COLUMNS);
    let mut note = |row: &str, cost: Cost| {
        sheet.record(row, "wall_s", cost.wall_s);
        sheet.record(row, "cpu_s", cost.cpu_s);
        let peak = number(cost.peak_rss_bytes);
        sheet.record(row, "peak_rss_bytes", peak);
        sheet.record(row, "inode_rss_bytes", peak / inodes);
    };
    let merging = nydus.map(|nydus| format!("{} merge", nydus.name()));
    for run in 1..=bench.runs {
        bench.interrupt.check()?;
        say(&format!("merging, run {run} of {}", bench.runs));
        measure::settle();
        let (cost, said) = convert()?;
        said.ensure_hits(archives.len())?;
        note(OURS, cost);
        if let Some((nydus, name)) = nydus.zip(merging.as_ref()) {
            let merged = dir.join("merged");
            measure::settle();
            let mut command = nydus.merge(&theirs, &merged);
            note(name, measure::run(&mut command, &dir.join("merge.log"))?);
            fs_err::remove_file(merged)?;
        }
    }
    let time = merging.and_then(|merging| sheet.ratio(OURS, &merging, "wall_s"));
    Ok(Report {
        notes: vec![
            "draught reads the records of all layers, which a build cache has, merges them, compresses the \
             metadata into a layer and writes manifest and tag; the destination has the blobs. nydus-image \
             merges the bootstraps that it made of the layers before, into one that is not compressed."
                .to_owned(),
        ],
        bars: vec![Bar::at_most(
            "merging over nydus-image merge",
            OVER_NYDUS_MOST,
            Unit::Times,
            time,
        )],
        sheets: vec![sheet],
    })
}

fn archive(dir: &Path, layer: u32) -> Result<PathBuf> {
    let path = dir.join(format!("layer{layer}.tar"));
    let out = BufWriter::new(fs_err::File::create(&path)?);
    let name = format!("package{layer}");
    generated::write(FILES, u64::from(layer), &["usr", "lib", &name], out)?;
    Ok(path)
}

/// The bootstrap of a layer alone.
fn bootstrap(nydus: &NydusImage, archive: &Path, dir: &Path) -> Result<PathBuf> {
    let bootstrap = archive.with_extension("boot");
    let blobs = dir.join("blobs");
    fs_err::create_dir_all(&blobs)?;
    let mut command = nydus.create(Input::Tar, archive);
    command.arg("--bootstrap").arg(&bootstrap);
    command.arg("--blob-dir").arg(&blobs);
    measure::run(&mut command, &dir.join("create.log"))?;
    Ok(bootstrap)
}
