//! Starts of programs over a slow link: cold, with a profile from another node, and by a full pull.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use draught_testkit::fault_proxy::Link;
use draught_testkit::need;

use super::overlay::Overlay;
use super::program::Program;
use crate::bench::draught::Registry;
use crate::bench::image::{layouts, oci};
use crate::bench::measure;
use crate::bench::node::Node;
use crate::bench::suite::bar::Bar;
use crate::bench::suite::bench::Bench;
use crate::bench::suite::counted::{Counted, Drawn};
use crate::bench::suite::report::Report;
use crate::bench::suite::sheet::{Column, Sheet};
use crate::bench::suite::unit::Unit;
use crate::run::{command, say};

/// The link that everything is drawn over.
const ROUND_TRIP: Duration = Duration::from_millis(50);
const LINK: Link = Link {
    round_trip: ROUND_TRIP,
    bytes_per_s: Some(100_000_000),
};

/// What a start with a profile may take: so many times the local one, and so many round trips.
const LOCAL_TIMES: f64 = 1.3;
const ROUND_TRIPS: f64 = 3.0;

/// How long everything may take to be local, from loopback.
const COMPLETE_MAX: Duration = Duration::from_secs(120);

const COLUMNS: &[Column] = &[
    Column("ready_s", "mounted or unpacked", Unit::Seconds),
    Column("run_s", "run", Unit::Seconds),
    Column("sum_s", "in all", Unit::Seconds),
    Column("times_local", "of local", Unit::Times),
    Column("drawn_bytes", "drawn", Unit::Bytes),
    Column("requests", "requests", Unit::Count),
];

/// Names of the rows.
const LOCAL: &str = "all local, page cache dropped";
const COLD: &str = "cold";
const PROFILED: &str = "with a profile from another node";
const PULLED: &str = "full pull and unpack";

/// The images and the link.
struct Stage<'a> {
    bench: &'a Bench<'a>,
    registry: Registry,
    counted: Counted,
}

/// Measures all programs.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Report> {
    let registry = bench.registry()?;
    let counted = Counted::before(&registry);
    counted.proxy().set_link(LINK);
    let stage = Stage {
        bench,
        registry,
        counted,
    };
    let mut report = Report::default();
    report.notes.push(
        "The daemon runs already, with nothing in its store; time is from `draught mount` to the end of the \
         program, which runs in an overlay over the mount. Local is the program alone. The pull is \
         `skopeo copy` and `umoci unpack` of the original image, gzipped."
            .to_owned(),
    );
    for program in Program::ALL {
        let sheet = stage.measure(&program)?;
        let local = sheet.median(LOCAL, "sum_s");
        report.bars.push(Bar::at_most(
            format!("start of {} with a profile", program.name),
            local.map(most),
            Unit::Seconds,
            sheet.median(PROFILED, "sum_s"),
        ));
        report.sheets.push(sheet);
    }
    Ok(report)
}

/// What a start may take that takes so long locally.
fn most(local_s: f64) -> f64 {
    LOCAL_TIMES * local_s + ROUND_TRIPS * ROUND_TRIP.as_secs_f64()
}

/// What a start took.
struct Started {
    ready_s: f64,
    sum_s: f64,
    drawn: Option<Drawn>,
}

impl Stage<'_> {
    fn measure(&self, program: &Program) -> Result<Sheet> {
        let (_, gzip_layout) = layouts(&program.archive()?)?;
        let name = format!("bench/{}", program.name);
        let direct = self.registry.reference(&name);
        self.bench.convert(&oci(&gzip_layout), &direct, &[])?;
        let pull = format!("{name}-original");
        let can_pull = need::find("skopeo").is_some() && need::find("umoci").is_some();
        if can_pull {
            let to = format!("docker://{}", self.registry.reference(&pull));
            let mut push = skopeo(&["--dest-tls-verify=false"]);
            measure::output(push.arg(oci(&gzip_layout)).arg(to))?;
        }
        let mut sheet = Sheet::new(program.name, COLUMNS);
        let locals = self.local(program, &direct)?;
        for (run, local_s) in locals.iter().enumerate() {
            say(&format!(
                "{}, run {} of {}",
                program.name,
                run + 1,
                self.bench.runs
            ));
            sheet.record(LOCAL, "run_s", *local_s);
            sheet.record(LOCAL, "sum_s", *local_s);
            sheet.record(LOCAL, "times_local", 1.0);
            let reference = self.counted.reference(&name);
            let profile = self.bench.scratch.join("profile");
            note(
                &mut sheet,
                COLD,
                *local_s,
                &self.cold(program, &reference, &profile)?,
            );
            note(
                &mut sheet,
                PROFILED,
                *local_s,
                &self.profiled(program, &reference, &profile)?,
            );
            if can_pull {
                note(&mut sheet, PULLED, *local_s, &self.pulled(program, &pull)?);
            }
        }
        Ok(sheet)
    }

    /// What the program takes when all is local, `runs` times.
    fn local(&self, program: &Program, reference: &str) -> Result<Vec<f64>> {
        let work = self.bench.fresh("work")?;
        let mut node = self.bench.node(&work, None)?;
        let dir = work.join("mount");
        node.mount_with(reference, &dir, &["--prefetch", "all"])?;
        node.wait_until_complete(&dir, COMPLETE_MAX)?;
        let mut all = Vec::new();
        for _ in 0..self.bench.runs {
            self.bench.interrupt.check()?;
            let overlay = Overlay::over(&dir, &work)?;
            measure::drop_caches()?;
            all.push(run(program, overlay.dir(), &work)?);
        }
        Ok(all)
    }

    /// A start on a node that knows nothing; its profile is written to a file.
    fn cold(&self, program: &Program, reference: &str, profile: &Path) -> Result<Started> {
        let work = self.bench.fresh("work")?;
        let mut node = self.bench.node(&work, None)?;
        let started = self.start(&mut node, program, reference, &work)?;
        let file = profile
            .to_str()
            .context("the scratch directory is not UTF-8")?;
        node.ask(&["profile", "export", reference, "-o", file])?;
        Ok(started)
    }

    /// A start on a second node that was given the first's profile.
    fn profiled(&self, program: &Program, reference: &str, profile: &Path) -> Result<Started> {
        let work = self.bench.fresh("work")?;
        let mut node = self.bench.node(&work, None)?;
        let file = profile
            .to_str()
            .context("the scratch directory is not UTF-8")?;
        node.ask(&["profile", "import", reference, file])?;
        self.start(&mut node, program, reference, &work)
    }

    fn start(
        &self,
        node: &mut Node<'_>,
        program: &Program,
        reference: &str,
        work: &Path,
    ) -> Result<Started> {
        let dir = work.join("mount");
        measure::drop_caches()?;
        // What came before is nobody's.
        self.counted.drawn();
        let begun = Instant::now();
        node.mount(reference, &dir)?;
        let ready_s = begun.elapsed().as_secs_f64();
        let overlay = Overlay::over(&dir, work)?;
        run(program, overlay.dir(), work)?;
        Ok(Started {
            ready_s,
            sum_s: begun.elapsed().as_secs_f64(),
            drawn: Some(self.counted.drawn()),
        })
    }

    /// Everything is pulled and unpacked first, as without a lazy format.
    fn pulled(&self, program: &Program, name: &str) -> Result<Started> {
        let work = self.bench.fresh("work")?;
        let layout = oci(&work.join("layout"));
        measure::drop_caches()?;
        self.counted.drawn();
        let begun = Instant::now();
        let from = format!("docker://{}", self.counted.reference(name));
        let mut pull = skopeo(&["--src-tls-verify=false"]);
        measure::output(pull.arg(from).arg(&layout))?;
        let bundle = work.join("bundle");
        let mut unpack = command("umoci", &["unpack", "--image"]);
        let image = layout.strip_prefix("oci:").unwrap_or(&layout);
        measure::output(unpack.arg(image).arg(&bundle))?;
        let ready_s = begun.elapsed().as_secs_f64();
        run(program, &bundle.join("rootfs"), &work)?;
        Ok(Started {
            ready_s,
            sum_s: begun.elapsed().as_secs_f64(),
            drawn: Some(self.counted.drawn()),
        })
    }
}

fn skopeo(args: &[&str]) -> std::process::Command {
    let mut copy = command("skopeo", &["copy", "--quiet", "--insecure-policy"]);
    copy.args(args);
    copy
}

/// Runs the program to its end; seconds.
fn run(program: &Program, root: &Path, work: &Path) -> Result<f64> {
    let log = work.join("program.log");
    let cost = measure::run(&mut program.within(root), &log)?;
    Ok(cost.wall_s)
}

fn note(sheet: &mut Sheet, row: &str, local_s: f64, started: &Started) {
    sheet.record(row, "ready_s", started.ready_s);
    sheet.record(row, "run_s", started.sum_s - started.ready_s);
    sheet.record(row, "sum_s", started.sum_s);
    sheet.record(row, "times_local", started.sum_s / local_s);
    if let Some(drawn) = started.drawn {
        sheet.record(row, "drawn_bytes", drawn.bytes);
        sheet.record(row, "requests", drawn.requests);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_may_take_a_third_longer_and_three_round_trips() {
        assert!((most(1.0) - 1.45).abs() < 1e-9);
    }
}
