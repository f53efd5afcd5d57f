//! Runs the parts that were asked for, and prints what they found.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::{Parser, ValueEnum};
use draught_testkit::Scratch;
use serde_json::{Value, json};

use super::bench::Bench;
use super::report::Report;
use crate::bench::draught::Draught;
use crate::bench::interrupt::Interrupt;
use crate::bench::machine::Machine;
use crate::run::say;

/// How everything is measured and shown.
#[derive(Debug, Parser)]
pub(crate) struct How {
    /// How often everything is measured; medians are shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Measure this program instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// How the numbers are written to standard output
    #[arg(long, default_value = "text")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables in Markdown, medians
    Text,
    /// All values of all runs
    Json,
}

/// A part: its name is what it is called on the command line.
pub(crate) trait Part: ValueEnum + PartialEq + Copy {
    /// Its title.
    fn words(self) -> &'static str;

    /// Its name.
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Runs the parts `only`, or all if it names none, and prints their numbers. A part that fails does not
/// take the others' with it.
pub(crate) fn run<P: Part>(
    how: &How,
    only: &[P],
    measure: impl Fn(P, &Bench<'_>) -> Result<Report>,
) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "measure: mounts and dropped page caches need root"
    );
    let interrupt = Interrupt::listen()?;
    let scratch = Scratch::new();
    let machine = Machine::see(scratch.path());
    let draught = match &how.binary {
        Some(binary) => Draught::at(binary)?,
        None => Draught::build()?,
    };
    let mut all = Vec::new();
    let mut failed = Vec::new();
    for part in P::value_variants().iter().copied() {
        if !only.is_empty() && !only.contains(&part) {
            continue;
        }
        say(part.words());
        let dir = scratch.dir(part.name());
        let bench = Bench {
            draught: &draught,
            scratch: &dir,
            runs: how.runs,
            interrupt: &interrupt,
            filesystem: machine.filesystem(),
        };
        let report = measure(part, &bench).or_else(|error| {
            interrupt.check()?;
            say(&format!("{} failed: {error:#}", part.name()));
            failed.push(part.name());
            Ok::<_, anyhow::Error>(Report::failed(&error))
        })?;
        all.push((part, report));
        fs_err::remove_dir_all(dir)?;
    }
    let text = match how.format {
        Format::Text => text(&machine, how.runs, &all),
        Format::Json => format!("{:#}\n", as_json(&machine, how.runs, &all)),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    if !failed.is_empty() {
        bail!("measure {}", failed.join(", "));
    }
    Ok(())
}

fn text<P: Part>(machine: &Machine, runs: u32, all: &[(P, Report)]) -> String {
    let mut text = format!("Medians of {runs} runs on {}.\n", machine.line());
    for (part, report) in all {
        text.push_str(&format!("\n### {}\n\n{}", part.words(), report.markdown()));
    }
    text
}

fn as_json<P: Part>(machine: &Machine, runs: u32, all: &[(P, Report)]) -> Value {
    let parts: Vec<Value> = all
        .iter()
        .map(|(part, report)| json!({"part": part.name(), "report": report.json()}))
        .collect();
    json!({"machine": machine.json(), "runs": runs, "parts": parts})
}
