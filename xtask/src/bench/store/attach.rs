//! Attaching an image of many files to an empty store, and to one that knows millions of chunks.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::plenty;
use crate::bench::image::oci;
use crate::bench::measure;
use crate::bench::node::Node;
use crate::bench::results::number;
use crate::bench::suite::bar::Bar;
use crate::bench::suite::bench::Bench;
use crate::bench::suite::generated;
use crate::bench::suite::report::Report;
use crate::bench::suite::sheet::{Column, Sheet};
use crate::bench::suite::unit::Unit;
use crate::run::say;

/// Files of the image that is attached.
const FILES: u32 = 100_000;

/// With a full store over with an empty one.
const MOST: f64 = 1.3;

/// How long the index may take to load.
const LOAD_MAX: Duration = Duration::from_secs(300);
/// How often it is asked about.
const POLL: Duration = Duration::from_millis(20);

const COLUMNS: &[Column] = &[
    Column("start_s", "daemon answers", Unit::Seconds),
    Column("index_s", "index loaded", Unit::Seconds),
    Column("index_bytes", "… its memory", Unit::Bytes),
    Column("settled_s", "store looked through", Unit::Seconds),
    Column("rss_before_bytes", "resident", Unit::Bytes),
    Column("mount_s", "mount", Unit::Seconds),
    Column("rss_after_bytes", "resident then", Unit::Bytes),
    Column("peak_bytes", "peak", Unit::Bytes),
];

/// Names of the rows.
const EMPTY: &str = "empty store";
const FULL: &str = "5 million chunks";

/// Attaches to both.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Report> {
    let registry = bench.registry()?;
    let work = bench.fresh("generated")?;
    say(&format!("an image of {FILES} files"));
    let layout = generated::layout(FILES, 1, &work)?;
    let reference = registry.reference("bench/attached");
    bench.convert(&oci(&layout), &reference, &[])?;
    let small = generated::layout(100, 2, &work)?;
    let template = registry.reference("bench/template");
    bench.convert(&oci(&small), &template, &[])?;
    fs_err::remove_dir_all(work)?;

    let full = bench.fresh("full")?;
    fill(bench, &full, &template)?;
    let mut sheet = Sheet::new(format!("Attaching an image of {FILES} files"), COLUMNS);
    for run in 1..=bench.runs {
        say(&format!("attaching, run {run} of {}", bench.runs));
        let empty = bench.fresh("work")?;
        attach(bench, &mut sheet, EMPTY, &empty, &reference, 0)?;
        bench.interrupt.check()?;
        attach(bench, &mut sheet, FULL, &full, &reference, plenty::CHUNKS)?;
    }
    let words = "attaching to a full store over to an empty one";
    let ratio = sheet.ratio(FULL, EMPTY, "mount_s");
    Ok(Report {
        notes: vec![
            "The daemon has loaded its index and looked through its store before the mount; nothing of the \
             image is in it."
                .to_owned(),
        ],
        bars: vec![Bar::at_most(words, MOST, Unit::Times, ratio)],
        sheets: vec![sheet],
    })
}

/// Makes the full store in `work`, with what a daemon wrote about a small image as the pattern of its images.
fn fill(bench: &Bench<'_>, work: &Path, template: &str) -> Result<()> {
    let mut node = bench.node(work, None)?;
    let dir = work.join("mount");
    node.mount(template, &dir)?;
    node.unmount(&dir)?;
    node.ask(&["daemon", "--stop"])?;
    drop(node);
    say(&format!("a store of {} chunks", plenty::CHUNKS));
    plenty::fill(&work.join("root/store"), bench.interrupt)
}

fn attach(
    bench: &Bench<'_>,
    sheet: &mut Sheet,
    row: &str,
    work: &Path,
    reference: &str,
    chunks: u64,
) -> Result<()> {
    measure::drop_caches()?;
    let begun = Instant::now();
    let mut node = bench.node(work, None)?;
    sheet.record(row, "start_s", begun.elapsed().as_secs_f64());
    let has = wait_for_index(&node, chunks, begun)?;
    if chunks > 0 {
        sheet.record(row, "index_s", begun.elapsed().as_secs_f64());
    }
    // It answers when what follows the loading, the removal of what nobody refers to, is over.
    node.ask(&["df"])?;
    sheet.record(row, "settled_s", begun.elapsed().as_secs_f64());
    let left = node.metric("draught_index_chunks")?;
    ensure!(
        left >= has,
        "keep the store full: of {has} chunks {left} are left"
    );
    sheet.record(
        row,
        "index_bytes",
        number(node.metric("draught_index_bytes")?),
    );
    let before = measure::usage(node.processes()?)?;
    sheet.record(row, "rss_before_bytes", number(before.rss_bytes));
    measure::settle();
    let dir = work.join("mount");
    let begun = Instant::now();
    node.mount(reference, &dir)?;
    sheet.record(row, "mount_s", begun.elapsed().as_secs_f64());
    let after = measure::usage(node.processes()?)?;
    sheet.record(row, "rss_after_bytes", number(after.rss_bytes));
    sheet.record(row, "peak_bytes", number(after.peak_rss_bytes));
    // The next run must not find it.
    node.unmount(&dir)?;
    node.ask(&["rm", reference]).map(drop)
}

/// Waits until the index has so many chunks.
fn wait_for_index(node: &Node<'_>, chunks: u64, begun: Instant) -> Result<u64> {
    loop {
        let has = node.metric("draught_index_chunks")?;
        if has >= chunks {
            return Ok(has);
        }
        if begun.elapsed() > LOAD_MAX {
            bail!("load the index: it has {has} of {chunks} chunks");
        }
        std::thread::sleep(POLL);
    }
}
