//! Reading, beside nydusd and a local EROFS, against what it may cost.

use anyhow::Result;

use crate::bench::image::{Image, Which};
use crate::bench::read::{Readings, UNSERVED};
use crate::bench::results::Metric;
use crate::bench::suite::bar::Bar;
use crate::bench::suite::bench::Bench;
use crate::bench::suite::report::Report;
use crate::bench::suite::sheet::{Column, Sheet};
use crate::bench::suite::unit::Unit;

/// Names of the contenders.
const OURS: &str = "draught";
const LAZY: &str = "nydusd 2.2, local blobs";
const LOCAL: &str = "mkfs.erofs, local";

/// What is compared with whom, and how many times as long it may take.
const BARS: [(Metric, &str, f64); 5] = [
    (Metric::ReadCold, LAZY, 0.45),
    (Metric::ReadDropped, UNSERVED, 1.15),
    (Metric::ReadDropped, LOCAL, 1.15),
    (Metric::ReadWarm, LOCAL, 1.05),
    (Metric::StatWarm, LOCAL, 1.05),
];

const COLUMNS: &[Column] = &[
    Column("ours_s", "draught", Unit::Seconds),
    Column("theirs_s", "theirs", Unit::Seconds),
    Column("ratio", "draught over theirs", Unit::Times),
];

/// Reads image A as `first-light` does.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Report> {
    let image = Image::prepare(Which::A, bench.scratch)?;
    let readings = Readings::measure(
        bench.draught,
        &image,
        bench.filesystem,
        bench.scratch,
        bench.runs,
        bench.interrupt,
    )?;
    let (_, words) = Which::A.words();
    let mut sheet = Sheet::new(format!("{words}, {}", readings.tree), COLUMNS);
    let mut bars = Vec::new();
    for (metric, other, most) in BARS {
        let row = format!("{}; {other}", metric.words());
        let results = &readings.results;
        let (ours, theirs) = (results.values(OURS, metric), results.values(other, metric));
        for (ours, theirs) in ours.iter().zip(theirs) {
            sheet.record(&row, "ours_s", *ours);
            sheet.record(&row, "theirs_s", *theirs);
            sheet.record(&row, "ratio", ours / theirs);
        }
        let words = format!("{}, over {other}", metric.words());
        let ratio = results.ratio(OURS, other, metric);
        bars.push(Bar::at_most(words, most, Unit::Times, ratio));
    }
    Ok(Report {
        sheets: vec![sheet],
        bars,
        ..Report::default()
    })
}
