//! Measuring all contenders, and the table of what came out.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::passes::{self, Expected};
use super::stage;
use crate::bench::draught::{Draught, Registry};
use crate::bench::image::Image;
use crate::bench::interrupt::Interrupt;
use crate::bench::results::{Metric, Results};
use crate::bench::table;
use crate::run::say;

/// What everybody is compared with.
const OURS: &str = "draught";

/// The rows of the table.
const METRICS: [Metric; 11] = [
    Metric::Mount,
    Metric::FirstByte,
    Metric::StatCold,
    Metric::ReadCold,
    Metric::DaemonCpu,
    Metric::ReadDropped,
    Metric::ReadWarm,
    Metric::StatWarm,
    Metric::MountAgain,
    Metric::DaemonPeakRss,
    Metric::DaemonOwnRss,
];

/// All numbers of reading one image.
#[derive(Debug)]
pub(crate) struct Readings {
    /// The numbers.
    pub(crate) results: Results,
    /// How much there is to read, for people.
    pub(crate) tree: String,
}

impl Readings {
    /// Reads an image `runs` times from each contender, one after the other in each run.
    pub(crate) fn measure(
        draught: &Draught,
        image: &Image,
        filesystem: &str,
        scratch: &Path,
        runs: u32,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let registry = Registry::start(draught, &scratch.join("registry"))?;
        let contenders = stage::set(draught, &registry, image, filesystem, scratch, interrupt)?;
        let expected = Expected::see(&image.tree)?;
        let mut results = Results::default();
        for run in 1..=runs {
            for contender in &contenders {
                interrupt.check()?;
                let name = contender.name();
                say(&format!("reading, run {run} of {runs}: {name}"));
                let work = scratch.join("work");
                fs_err::create_dir_all(&work)?;
                passes::measure(&**contender, &work, &expected, run == 1, &mut results)
                    .with_context(|| format!("measure {name}"))?;
                // Nothing is mounted there any more: what was, ended with the measurement.
                fs_err::remove_dir_all(&work)?;
            }
        }
        Ok(Self {
            results,
            tree: expected.words(),
        })
    }

    /// The numbers as a table: what each contender needs, and that as a multiple of what draught needs.
    pub(crate) fn table(&self) -> String {
        let contenders: Vec<&str> = self.results.contenders().collect();
        let mut head = vec![String::new()];
        head.extend(contenders.iter().map(|name| (*name).to_owned()));
        let row = |metric: &Metric| {
            let mut row = vec![metric.words().to_owned()];
            row.extend(contenders.iter().map(|name| self.cell(name, *metric)));
            row
        };
        let rows: Vec<Vec<String>> = METRICS.iter().map(row).collect();
        table::markdown(&head, &rows)
    }

    fn cell(&self, name: &str, metric: Metric) -> String {
        let Some(median) = self.results.median(name, metric) else {
            return String::new();
        };
        let shown = metric.shown(median);
        match self.results.ratio(name, OURS, metric) {
            Some(ratio) if name != OURS => format!("{shown} ×{ratio:.2}"),
            _ => shown,
        }
    }
}
