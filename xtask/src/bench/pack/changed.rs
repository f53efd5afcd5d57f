//! A second version of an image: what a build cache saves.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::said;
use super::slices::{LAYERS, Slices};
use crate::bench::draught::Registry;
use crate::bench::image::oci;
use crate::bench::measure;
use crate::bench::results::number;
use crate::bench::suite::bar::Bar;
use crate::bench::suite::bench::Bench;
use crate::bench::suite::counted::Counted;
use crate::bench::suite::report::Report;
use crate::bench::suite::sheet::{Column, Sheet};
use crate::bench::suite::unit::{Unit, percent};
use crate::run::say;

/// Time with the cache, in hundredths of that without.
const TIME_MOST: f64 = 15.0;

/// What is pushed over the blob of the layer that changed.
const PUSHED_MOST: f64 = 1.05;

const COLUMNS: &[Column] = &[
    Column("plain_s", "without a cache", Unit::Seconds),
    Column("cached_s", "with it", Unit::Seconds),
    Column("of_plain_percent", "of that", Unit::Percent),
    Column("plain_pushed_bytes", "pushed without", Unit::Bytes),
    Column("pushed_bytes", "pushed with it", Unit::Bytes),
    Column("blob_bytes", "the changed layer's blob", Unit::Bytes),
    Column("metadata_bytes", "the image's metadata", Unit::Bytes),
    Column("over_blob", "pushed over blob", Unit::Times),
];

/// Which layer changes: its number, and what it is.
const TOP: (usize, &str) = (LAYERS - 1, "the uppermost layer changed");
const MIDDLE: (usize, &str) = (LAYERS / 2, "the sixth layer changed");

/// Converts both versions.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Report> {
    let dir = bench.fresh("slices")?;
    let slices = Slices::cut(&dir, bench.interrupt)?;
    let first = slices.layout("first", None)?;
    let mut sheet = Sheet::new(
        "Debian bookworm minbase in ten layers, gzipped, of which one has a new file of 100 kB",
        COLUMNS,
    );
    for (number, words) in [TOP, MIDDLE] {
        let second = slices.layout(&format!("second{number}"), Some(number))?;
        for run in 1..=bench.runs {
            say(&format!("{words}, run {run} of {}", bench.runs));
            version(bench, &mut sheet, (number, words), &first, &second)?;
        }
    }
    let words = TOP.1;
    Ok(Report {
        notes: vec![
            "From a local layout to a registry on loopback, through a proxy that counts. The cache is a \
             directory that the first version filled, and the registry has what that pushed. What is pushed \
             is all that was sent: blobs, the image's metadata, which is new each time, and documents. \
             Layers above one that changed are packed anew, since they share chunks with those below."
                .to_owned(),
        ],
        bars: vec![
            Bar::at_most(
                format!("{words}: time with a cache"),
                TIME_MOST,
                Unit::Percent,
                sheet.median(words, "of_plain_percent"),
            ),
            Bar::at_most(
                format!("{words}: pushed over the blob of that layer"),
                PUSHED_MOST,
                Unit::Times,
                sheet.median(words, "over_blob"),
            ),
        ],
        sheets: vec![sheet],
    })
}

/// Converts the second version once without a cache, and once with that of the first.
fn version(
    bench: &Bench<'_>,
    sheet: &mut Sheet,
    (changed, words): (usize, &str),
    first: &Path,
    second: &Path,
) -> Result<()> {
    let work = bench.fresh("work")?;
    let log = work.join("convert.log");
    let mut note = |key: &str, value: f64| sheet.record(words, key, value);

    let registry = Registry::start(bench.draught, &work.join("plain"))?;
    let counted = Counted::before(&registry);
    let to = counted.reference("bench/changed");
    measure::settle();
    let mut convert = bench.draught.convert(&work, &oci(second), &to, &[]);
    let (plain, _) = said::convert(&mut convert, &log)?;
    note("plain_s", plain.wall_s);
    note("plain_pushed_bytes", counted.drawn().pushed_bytes);
    drop((counted, registry));

    let registry = Registry::start(bench.draught, &work.join("cached"))?;
    let counted = Counted::before(&registry);
    let to = counted.reference("bench/changed");
    let cache = format!("--cache=dir:{}", work.join("cache").display());
    let convert = |from: &Path| {
        let mut command = bench.draught.convert(&work, &oci(from), &to, &[&cache]);
        said::convert(&mut command, &log)
    };
    convert(first)?;
    bench.interrupt.check()?;
    // Only what comes now is of interest.
    counted.drawn();
    measure::settle();
    let (cost, said) = convert(second)?;
    said.ensure_hits(changed)?;
    let pushed = counted.drawn().pushed_bytes;
    let blob = said
        .blob_bytes
        .get(changed)
        .context("find the changed layer")?;
    note("cached_s", cost.wall_s);
    note("of_plain_percent", percent(cost.wall_s, plain.wall_s));
    note("pushed_bytes", pushed);
    note("blob_bytes", number(*blob));
    note("metadata_bytes", number(said.metadata_bytes));
    note("over_blob", pushed / number(*blob));
    Ok(())
}
