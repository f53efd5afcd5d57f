//! Converting one image with one after the other.

use std::io;
use std::path::Path;

use anyhow::Result;

use super::contender::{Contender, Input, Outcome};
use crate::bench::image::Image;
use crate::bench::interrupt::Interrupt;
use crate::bench::measure;
use crate::bench::results::{Metric, Results, number};
use crate::bench::suite::sheet::{Column, Sheet};
use crate::bench::suite::unit::Unit;
use crate::bench::table;
use crate::run::say;

/// Who needs longer than this is not run again: no ratio of it depends on noise.
pub(crate) const AGAIN_BELOW_S: f64 = 60.0;

/// What is measured of a conversion.
const METRICS: [Metric; 4] = [Metric::Wall, Metric::Cpu, Metric::PeakRss, Metric::Bytes];

/// The same as columns.
const COLUMNS: &[Column] = &[
    Column("wall_s", "wall", Unit::Seconds),
    Column("cpu_s", "CPU", Unit::Seconds),
    Column("peak_rss_bytes", "peak RSS", Unit::Bytes),
    Column("result_bytes", "result", Unit::Bytes),
];

/// All numbers of converting one image.
#[derive(Debug)]
pub(crate) struct Conversions {
    /// The numbers.
    pub(crate) results: Results,
    inputs: Vec<(String, Input)>,
}

/// Converts an image `runs` times with each contender, one after the other in each run.
pub(crate) fn measure(
    contenders: &[Contender<'_>],
    image: &Image,
    scratch: &Path,
    runs: u32,
    interrupt: &Interrupt,
) -> Result<Conversions> {
    for input in [&image.archive, &image.gzipped] {
        // All find their input in memory.
        io::copy(&mut fs_err::File::open(input)?, &mut io::sink())?;
    }
    let mut results = Results::default();
    for run in 1..=runs {
        for contender in contenders {
            let name = &contender.name;
            let before = results.values(name, Metric::Wall);
            if before.iter().any(|wall| *wall > AGAIN_BELOW_S) {
                continue;
            }
            interrupt.check()?;
            say(&format!("converting, run {run} of {runs}: {name}"));
            let out = scratch.join("converted");
            fs_err::create_dir_all(&out)?;
            measure::settle();
            let outcome = (contender.work)(&out)?;
            fs_err::remove_dir_all(&out)?;
            note(&mut results, name, &outcome);
        }
    }
    let inputs = contenders
        .iter()
        .map(|contender| (contender.name.clone(), contender.input));
    Ok(Conversions {
        results,
        inputs: inputs.collect(),
    })
}

fn note(results: &mut Results, name: &str, outcome: &Outcome) {
    results.record(name, Metric::Wall, outcome.wall_s);
    if let Some(cost) = outcome.cost {
        results.record(name, Metric::Cpu, cost.cpu_s);
        results.record(name, Metric::PeakRss, number(cost.peak_rss_bytes));
    }
    if let Some(bytes) = outcome.bytes {
        results.record(name, Metric::Bytes, number(bytes));
    }
}

impl Conversions {
    /// The numbers as a table, with how many times as long each takes as draught on the same input.
    pub(crate) fn table(&self) -> String {
        let head = ["", "wall", "CPU", "peak RSS", "result", "runs", "× draught"];
        let head: Vec<String> = head.map(str::to_owned).to_vec();
        let rows: Vec<Vec<String>> = self.inputs.iter().map(|row| self.row(row)).collect();
        table::markdown(&head, &rows)
    }

    fn row(&self, (name, input): &(String, Input)) -> Vec<String> {
        let mut row = vec![name.clone()];
        for metric in METRICS {
            let median = self.results.median(name, metric);
            row.push(median.map_or_else(String::new, |value| metric.shown(value)));
        }
        row.push(self.results.values(name, Metric::Wall).len().to_string());
        // The first of them is draught as it is without options.
        let ours = self.inputs.iter().find(|(_, other)| other == input);
        let ratio = ours.and_then(|(ours, _)| self.results.ratio(name, ours, Metric::Wall));
        row.push(ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")));
        row
    }

    /// The numbers as a part of a benchmark shows them.
    pub(crate) fn sheet(&self, title: &str) -> Sheet {
        let mut sheet = Sheet::new(title, COLUMNS);
        for (name, _) in &self.inputs {
            for (metric, Column(key, ..)) in METRICS.into_iter().zip(COLUMNS) {
                for value in self.results.values(name, metric) {
                    sheet.record(name, key, *value);
                }
            }
        }
        sheet
    }
}
