//! Many mounts of one image at once: what they draw together.

use std::path::Path;
use std::sync::Barrier;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::bench::image::{self, Which, oci};
use crate::bench::measure;
use crate::bench::reader;
use crate::bench::results::number;
use crate::bench::suite::bar::Bar;
use crate::bench::suite::bench::Bench;
use crate::bench::suite::counted::Counted;
use crate::bench::suite::report::Report;
use crate::bench::suite::sheet::{Column, Sheet};
use crate::bench::suite::unit::{Unit, percent};
use crate::run::say;

/// How many mounts a crowd is.
const CROWD: usize = 50;

/// What every reader of it reads.
const START_SET: [&str; 3] = ["usr/bin", "usr/sbin", "etc"];

/// Drawn by the crowd over drawn by one. It may be less: who reads alone and in order is given what follows
/// as well.
const DRAWN_MOST: f64 = 1.0;

/// Of that, what was drawn before, in hundredths. It is not nothing: a request that spans two wanted ranges
/// brings what is between them, which may be there already or be wanted later.
const AGAIN_MOST: f64 = 2.0;

const COLUMNS: &[Column] = &[
    Column("blob_bytes", "drawn of blobs", Unit::Bytes),
    Column("content_bytes", "… of it content", Unit::Bytes),
    Column("again_percent", "… drawn before", Unit::Percent),
    Column("requests", "requests", Unit::Count),
    Column("seconds", "until all have read", Unit::Seconds),
    Column("rss_bytes", "memory of the daemon", Unit::Bytes),
];

/// Mounts once, and many times at once.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Report> {
    let registry = bench.registry()?;
    let (_, layout) = image::layouts(&Which::A.archive()?)?;
    let name = "bench/crowd";
    bench.convert(&oci(&layout), &registry.reference(name), &[])?;
    let counted = Counted::before(&registry);
    let mut sheet = Sheet::new("Mounts of one image at once", COLUMNS);
    let words = |mounts: usize| match mounts {
        1 => "1 mount".to_owned(),
        mounts => format!("{mounts} mounts"),
    };
    for run in 1..=bench.runs {
        for mounts in [1, CROWD] {
            let row = words(mounts);
            say(&format!("{row}, run {run} of {}", bench.runs));
            let work = bench.fresh("work")?;
            let mut node = bench.node(&work, None)?;
            measure::drop_caches()?;
            counted.drawn();
            let dirs: Vec<_> = (0..mounts).map(|at| work.join(format!("m{at}"))).collect();
            let reference = counted.reference(name);
            let commands = dirs.iter().map(|dir| node.mounting(&reference, dir));
            let commands = commands.collect::<Result<Vec<_>>>()?;
            let begun = Instant::now();
            crowd(commands, &dirs)?;
            sheet.record(&row, "seconds", begun.elapsed().as_secs_f64());
            let drawn = counted.drawn();
            sheet.record(&row, "blob_bytes", drawn.blob_bytes);
            let again = percent(drawn.again_bytes, drawn.blob_bytes);
            sheet.record(&row, "again_percent", again);
            sheet.record(&row, "requests", drawn.requests);
            let first = dirs.first().context("no mounts")?;
            let content = node.of_mount(first, "bytes_fetched")?;
            sheet.record(&row, "content_bytes", number(content));
            let usage = measure::usage(node.processes()?)?;
            sheet.record(&row, "rss_bytes", number(usage.rss_bytes));
        }
    }
    let ratio = sheet.ratio(&words(CROWD), &words(1), "blob_bytes");
    let again = sheet.median(&words(CROWD), "again_percent");
    let words = format!("drawn by {CROWD} mounts over drawn by one");
    let bars = vec![
        Bar::at_most(words, DRAWN_MOST, Unit::Times, ratio),
        Bar::at_most(
            format!("drawn more than once by {CROWD} mounts"),
            AGAIN_MOST,
            Unit::Percent,
            again,
        ),
    ];
    Ok(Report {
        notes: vec![format!(
            "Each mounts and then reads all files below {}; the page cache was dropped.",
            START_SET.join(", ")
        )],
        sheets: vec![sheet],
        bars,
    })
}

/// Runs all commands at once, and reads what each mounted as soon as it is.
fn crowd<D: AsRef<Path> + Sync>(commands: Vec<std::process::Command>, dirs: &[D]) -> Result<()> {
    let together = Barrier::new(commands.len());
    std::thread::scope(|scope| {
        let readers: Vec<_> = commands
            .into_iter()
            .zip(dirs)
            .map(|(mut command, dir)| {
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    measure::output(&mut command)?;
                    for part in START_SET {
                        reader::read_all(&dir.as_ref().join(part))?;
                    }
                    Ok(())
                })
            })
            .collect();
        let mut all = Ok(());
        for reader in readers {
            let result = reader
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a reader panicked"));
            all = all.and(result);
        }
        all
    })
}
