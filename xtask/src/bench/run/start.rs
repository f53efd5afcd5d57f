//! From the pull to the first output of a program in a container, on a node that has nothing yet.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use draught_testkit::fault_proxy::Link;

use super::program::Program;
use super::side::{Side, Whose};
use crate::bench::draught::Registry;
use crate::bench::image::oci;
use crate::bench::measure;
use crate::bench::suite::bar::Bar;
use crate::bench::suite::bench::Bench;
use crate::bench::suite::counted::Counted;
use crate::bench::suite::report::Report;
use crate::bench::suite::sheet::{Column, Sheet};
use crate::bench::suite::unit::Unit;
use crate::run::{command, say};

/// Bandwidth of all links.
const BYTES_PER_S: u64 = 100_000_000;

/// Their round trips, and what they are called.
const LINKS: [(Duration, &str); 2] = [
    (Duration::ZERO, "0 ms"),
    (Duration::from_millis(50), "50 ms"),
];

const COLUMNS: &[Column] = &[
    Column("pull_s", "pull", Unit::Seconds),
    Column("first_s", "run until the first output", Unit::Seconds),
    Column("sum_s", "in all", Unit::Seconds),
    Column("times", "of pulling it whole", Unit::Times),
    Column("drawn_bytes", "drawn", Unit::Bytes),
    Column("requests", "requests", Unit::Count),
];

/// How an image is had: the row's name, whose snapshotter, what the image is converted to.
const WAYS: [(&str, Whose, &str); 3] = [
    ("draught, eStargz", Whose::Draught, "estargz"),
    ("draught, nydus", Whose::Draught, "nydus"),
    (WHOLE, Whose::Overlayfs, ""),
];

/// The one that is compared with.
const WHOLE: &str = "overlayfs, pulled whole";

/// Measures all programs over all links.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Report> {
    let registry = bench.registry()?;
    let counted = Counted::before(&registry);
    let mut report = Report::default();
    report.notes.push(
        "A fresh containerd and a fresh daemon run already; time is from `ctr-remote images rpull` or \
         `ctr images pull` to the first byte that the program prints in `ctr run`. The page cache was \
         dropped. The link has 100 MB/s."
            .to_owned(),
    );
    for program in Program::ALL {
        push(bench, &registry, &program)?;
        for (round_trip, words) in LINKS {
            counted.proxy().set_link(Link {
                round_trip,
                bytes_per_s: Some(BYTES_PER_S),
            });
            let sheet = measure_one(bench, &counted, &program, words)?;
            for (way, whose, _) in WAYS {
                if whose == Whose::Draught {
                    report.bars.push(Bar::at_most(
                        format!("{} at {words}, {way}, over pulling it whole", program.name),
                        program.times_most,
                        Unit::Times,
                        sheet.ratio(way, WHOLE, "sum_s"),
                    ));
                }
            }
            report.sheets.push(sheet);
        }
    }
    Ok(report)
}

/// The name of a program's image in one form.
fn name(program: &Program, form: &str) -> String {
    format!("bench/{}{form}", program.name)
}

/// Puts a program's image into the registry, in all forms.
fn push(bench: &Bench<'_>, registry: &Registry, program: &Program) -> Result<()> {
    let from = oci(&program.layout()?);
    for (_, _, form) in WAYS {
        bench.interrupt.check()?;
        let to = registry.reference(&name(program, form));
        say(&format!(
            "{} as {}",
            program.name,
            if form.is_empty() { "it is" } else { form }
        ));
        if form.is_empty() {
            let mut copy = command("skopeo", &["copy", "--quiet", "--insecure-policy"]);
            copy.args(["--dest-tls-verify=false", &from]);
            measure::output(copy.arg(format!("docker://{to}")))?;
        } else {
            let scratch = bench.fresh("convert")?;
            let mut convert = bench.draught.convert(&scratch, &from, &to, &["--to", form]);
            measure::output(&mut convert).with_context(|| format!("convert to {form}"))?;
        }
    }
    Ok(())
}

fn measure_one(
    bench: &Bench<'_>,
    counted: &Counted,
    program: &Program,
    link: &str,
) -> Result<Sheet> {
    let mut sheet = Sheet::new(format!("{} at {link}", program.name), COLUMNS);
    for run in 1..=bench.runs {
        say(&format!(
            "{} at {link}, run {run} of {}",
            program.name, bench.runs
        ));
        let mut sums = Vec::new();
        for (way, whose, form) in WAYS {
            let work = bench.fresh("work")?;
            let side = Side::start(bench, whose, &work)?;
            let reference = counted.reference(&name(program, form));
            measure::drop_caches()?;
            // What came before is nobody's.
            counted.drawn();
            let begun = Instant::now();
            side.pull(&reference)?;
            let pull_s = begun.elapsed().as_secs_f64();
            let first_s = side.run(&reference, "bench", program.argv)?;
            let drawn = counted.drawn();
            sheet.record(way, "pull_s", pull_s);
            sheet.record(way, "first_s", first_s);
            sheet.record(way, "sum_s", pull_s + first_s);
            sheet.record(way, "drawn_bytes", drawn.bytes);
            sheet.record(way, "requests", drawn.requests);
            sums.push((way, pull_s + first_s));
        }
        let whole = sums.iter().find(|(way, _)| *way == WHOLE);
        let whole_s = whole.context("it was not pulled whole")?.1;
        for (way, sum_s) in sums {
            sheet.record(way, "times", sum_s / whole_s);
        }
    }
    Ok(sheet)
}
