//! Memory of the daemon with many files mounted.

use anyhow::Result;

use crate::bench::image::oci;
use crate::bench::measure;
use crate::bench::node::Node;
use crate::bench::reader;
use crate::bench::results::number;
use crate::bench::suite::bar::Bar;
use crate::bench::suite::bench::Bench;
use crate::bench::suite::generated;
use crate::bench::suite::report::Report;
use crate::bench::suite::sheet::{Column, Sheet};
use crate::bench::suite::unit::Unit;
use crate::run::say;

/// Images that are mounted together, and their files.
const IMAGES: u32 = 10;
const FILES: u32 = 10_000;

/// Files of the large image.
const MANY: u32 = 100_000;

/// Memory with all the small images mounted.
const RSS_MOST: f64 = 64e6;

const COLUMNS: &[Column] = &[
    Column("rss_bytes", "resident", Unit::Bytes),
    Column("own_bytes", "… of it its own", Unit::Bytes),
    Column("peak_bytes", "peak", Unit::Bytes),
];

/// Names of the rows.
const EMPTY: &str = "nothing mounted";
const TEN: &str = "10 images of 10,000 files, mounted";
const TEN_SEEN: &str = "… and all entries looked at";
const ONE: &str = "one image of 100,000 files, mounted";
const ONE_SEEN: &str = "… and all of its entries looked at";

/// Mounts and looks.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Report> {
    let registry = bench.registry()?;
    let mut references = Vec::new();
    for (seed, files) in (0..IMAGES)
        .map(|seed| (seed, FILES))
        .chain([(IMAGES, MANY)])
    {
        say(&format!("an image of {files} files, number {seed}"));
        let work = bench.fresh("generated")?;
        let layout = generated::layout(files, u64::from(seed), &work)?;
        let reference = registry.reference(&format!("bench/generated{seed}"));
        bench.convert(&oci(&layout), &reference, &[])?;
        references.push(reference);
    }
    let many = references.split_off(references.len().saturating_sub(1));
    let mut sheet = Sheet::new("Keeper and worker together", COLUMNS);
    for run in 1..=bench.runs {
        for (references, mounted, seen) in [(&references, TEN, TEN_SEEN), (&many, ONE, ONE_SEEN)] {
            say(&format!("{mounted}, run {run} of {}", bench.runs));
            let work = bench.fresh("work")?;
            let mut node = bench.node(&work, None)?;
            if mounted == TEN {
                note(&mut sheet, EMPTY, &mut node)?;
            }
            let dirs = (0..references.len()).map(|at| work.join(format!("m{at}")));
            let dirs: Vec<_> = dirs.collect();
            for (reference, dir) in references.iter().zip(&dirs) {
                bench.interrupt.check()?;
                node.mount(reference, dir)?;
            }
            note(&mut sheet, mounted, &mut node)?;
            for dir in &dirs {
                reader::stat_all(dir)?;
            }
            note(&mut sheet, seen, &mut node)?;
        }
    }
    let measured = sheet.median(TEN, "rss_bytes");
    let words = "resident with 10 images of 10,000 files mounted";
    let bar = Bar::at_most(words, RSS_MOST, Unit::Bytes, measured);
    Ok(Report {
        notes: vec![
            "Resident are also the pages of the program's file that it used; its own are those that belong \
             to no file."
                .to_owned(),
        ],
        sheets: vec![sheet],
        bars: vec![bar],
    })
}

fn note(sheet: &mut Sheet, row: &str, node: &mut Node<'_>) -> Result<()> {
    let usage = measure::usage(node.processes()?)?;
    sheet.record(row, "rss_bytes", number(usage.rss_bytes));
    sheet.record(row, "own_bytes", number(usage.own_rss_bytes));
    sheet.record(row, "peak_bytes", number(usage.peak_rss_bytes));
    Ok(())
}
