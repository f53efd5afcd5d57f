//! How the cost grows with files and with bytes: packing archives that are generated meanwhile.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::plot::{self, Panel, Point};
use crate::bench::convert::AGAIN_BELOW_S;
use crate::bench::measure::{self, Cost};
use crate::bench::release;
use crate::bench::results::number;
use crate::bench::suite::bar::Bar;
use crate::bench::suite::bench::Bench;
use crate::bench::suite::report::Report;
use crate::bench::suite::sheet::{Column, Sheet};
use crate::bench::suite::unit::Unit;
use crate::run::say;

/// How much more a file or a byte may cost among ten times as many. All costs are linear but for sorting
/// names and looking up digests, whose tables grow out of the processor's caches.
const GROWTH_MOST: f64 = 1.2;

const COLUMNS: &[Column] = &[
    Column("wall_s", "wall", Unit::Seconds),
    Column("generating_s", "generating alone", Unit::Seconds),
    Column("cpu_s", "CPU", Unit::Seconds),
    Column("peak_rss_bytes", "peak RSS", Unit::Bytes),
    Column("stored_bytes", "result", Unit::Bytes),
    Column("million_files_s", "for a million files", Unit::Seconds),
    Column("gigabyte_s", "for a GB", Unit::Seconds),
];

/// An archive.
struct Shape {
    words: &'static str,
    files: u64,
    /// Of each file.
    bytes: u64,
}

const SMALL: [Shape; 3] = [
    Shape {
        words: "10,000 files of 4 KiB",
        files: 10_000,
        bytes: 4096,
    },
    Shape {
        words: "100,000 files of 4 KiB",
        files: 100_000,
        bytes: 4096,
    },
    Shape {
        words: "1,000,000 files of 4 KiB",
        files: 1_000_000,
        bytes: 4096,
    },
];

const LARGE: [Shape; 2] = [
    Shape {
        words: "1 GB in 4 files",
        files: 4,
        bytes: 250_000_000,
    },
    Shape {
        words: "10 GB in 4 files",
        files: 4,
        bytes: 2_500_000_000,
    },
];

impl Shape {
    fn content_bytes(&self) -> f64 {
        number(self.files * self.bytes)
    }
}

/// Packs all shapes, and draws them into a file if one is named.
pub(super) fn measure(bench: &Bench<'_>, svg: Option<&Path>) -> Result<Report> {
    let program = program()?;
    let title = "Generated archives, about a third of them is left by zstd";
    let mut sheet = Sheet::new(title, COLUMNS);
    for run in 1..=bench.runs {
        for shape in SMALL.iter().chain(&LARGE) {
            let before = sheet.values(shape.words, "wall_s");
            if before.iter().any(|wall| *wall > AGAIN_BELOW_S) {
                continue;
            }
            bench.interrupt.check()?;
            say(&format!("{}, run {run} of {}", shape.words, bench.runs));
            one(bench, &program, shape, &mut sheet)?;
        }
    }
    if let Some(svg) = svg {
        fs_err::write(svg, drawn(&sheet)?)?;
    }
    let growth = |from: &Shape, to: &Shape, key: &str| sheet.ratio(to.words, from.words, key);
    let [_, hundred_thousand, million] = &SMALL;
    let [one, ten] = &LARGE;
    Ok(Report {
        notes: vec![
            "The packer as a library in a process of its own, which also generates the archive, on a thread \
             of its own through a pipe; nothing of it is stored. The blob lies in a file without a name. What \
             takes a minute or more is measured once."
                .to_owned(),
        ],
        bars: vec![
            Bar::at_most(
                "time for a file among 1,000,000 over that among 100,000",
                GROWTH_MOST,
                Unit::Times,
                growth(hundred_thousand, million, "million_files_s"),
            ),
            Bar::at_most(
                "time for a GB of 10 over that of one alone",
                GROWTH_MOST,
                Unit::Times,
                growth(one, ten, "gigabyte_s"),
            ),
            Bar::at_most(
                "peak RSS for 10 GB over that for one",
                GROWTH_MOST,
                Unit::Times,
                growth(one, ten, "peak_rss_bytes"),
            ),
        ],
        sheets: vec![sheet],
    })
}

/// Ourselves, with an optimizer: what is measured is in us.
fn program() -> Result<PathBuf> {
    if cfg!(debug_assertions) {
        return release::build("xtask");
    }
    std::env::current_exe().context("find this program's own file")
}

fn one(bench: &Bench<'_>, program: &Path, shape: &Shape, sheet: &mut Sheet) -> Result<()> {
    let work = bench.fresh("work")?;
    let log = bench.scratch.join("pack.log");
    let run = |args: &[&str]| -> Result<(Cost, f64)> {
        let mut command = Command::new(program);
        command.args([
            "bench",
            "pack-generated",
            "--files",
            &shape.files.to_string(),
        ]);
        command.args(["--bytes", &shape.bytes.to_string(), "--scratch"]);
        command.arg(&work).args(args);
        measure::settle();
        let cost = measure::run(&mut command, &log)?;
        let said: Value = serde_json::from_str(&fs_err::read_to_string(&log)?)?;
        let stored = said.get("stored_bytes").and_then(Value::as_u64);
        Ok((cost, number(stored.context("find the size of the result")?)))
    };
    let (generating, _) = run(&["--only-generate"])?;
    let (cost, stored) = run(&[])?;
    let mut note = |key: &str, value: f64| sheet.record(shape.words, key, value);
    note("wall_s", cost.wall_s);
    note("generating_s", generating.wall_s);
    note("cpu_s", cost.cpu_s);
    note("peak_rss_bytes", number(cost.peak_rss_bytes));
    note("stored_bytes", stored);
    if SMALL.iter().any(|small| small.words == shape.words) {
        note("million_files_s", cost.wall_s / number(shape.files) * 1e6);
    }
    note("gigabyte_s", cost.wall_s / shape.content_bytes() * 1e9);
    Ok(())
}

fn drawn(sheet: &Sheet) -> Result<String> {
    let point = |shape: &Shape, x: f64| {
        Some(Point {
            x,
            y: sheet.median(shape.words, "wall_s")?,
            words: format!(
                "{}, {}",
                Unit::Seconds.shown(sheet.median(shape.words, "wall_s")?),
                Unit::Bytes.shown(sheet.median(shape.words, "peak_rss_bytes")?)
            ),
        })
    };
    let files = SMALL
        .iter()
        .filter_map(|shape| point(shape, number(shape.files)));
    let bytes = LARGE
        .iter()
        .filter_map(|shape| point(shape, shape.content_bytes() / 1e9));
    Ok(plot::svg(&[
        Panel {
            title: "files of 4 KiB: wall time, peak RSS",
            axis: "files",
            points: files.collect(),
        },
        Panel {
            title: "GB in 4 files: wall time, peak RSS",
            axis: "GB",
            points: bytes.collect(),
        },
    ])?)
}
