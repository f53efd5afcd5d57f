//! `cargo xtask bench store`: whether the bars of the store and the prefetcher are met.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::{Parser, ValueEnum};
use draught_testkit::Scratch;
use serde_json::{Value, json};

use super::bench::Bench;
use super::report::Report;
use super::{attach, crowd, dedup, memory, read, start};
use crate::bench::draught::Draught;
use crate::bench::interrupt::Interrupt;
use crate::bench::machine::Machine;
use crate::run::say;

/// Deduplication, starts over a slow link, crowds, memory: measured against what they may cost
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Only this part; can be repeated
    #[arg(long)]
    part: Vec<Part>,
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
enum Part {
    /// What deduplication costs the first image and saves the next
    Dedup,
    /// Starts of Python, Node and a compiler over a slow link
    Start,
    /// Fifty mounts of one image at once
    Crowd,
    /// Memory of the daemon with many files mounted
    Memory,
    /// Attaching an image to a store that has much already
    Attach,
    /// Reading, beside nydusd and a local EROFS
    Read,
}

impl Part {
    const ALL: [Self; 6] = [
        Self::Dedup,
        Self::Start,
        Self::Crowd,
        Self::Memory,
        Self::Attach,
        Self::Read,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Dedup => "dedup",
            Self::Start => "start",
            Self::Crowd => "crowd",
            Self::Memory => "memory",
            Self::Attach => "attach",
            Self::Read => "read",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Dedup => "Deduplication",
            Self::Start => "Starts over a link of 50 ms and 100 MB/s",
            Self::Crowd => "A crowd",
            Self::Memory => "Memory",
            Self::Attach => "Attaching to a full store",
            Self::Read => "Reading",
        }
    }

    fn measure(self, bench: &Bench<'_>) -> Result<Report> {
        match self {
            Self::Dedup => dedup::measure(bench),
            Self::Start => start::measure(bench),
            Self::Crowd => crowd::measure(bench),
            Self::Memory => memory::measure(bench),
            Self::Attach => attach::measure(bench),
            Self::Read => read::measure(bench),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables in Markdown, medians
    Text,
    /// All values of all runs
    Json,
}

/// Runs the benchmark and prints its numbers. A part that fails does not take the others' with it.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "measure: mounts and dropped page caches need root"
    );
    let interrupt = Interrupt::listen()?;
    let scratch = Scratch::new();
    let machine = Machine::see(scratch.path());
    let draught = match &args.binary {
        Some(binary) => Draught::at(binary)?,
        None => Draught::build()?,
    };
    let mut all = Vec::new();
    let mut failed = Vec::new();
    for part in Part::ALL {
        if !args.part.is_empty() && !args.part.contains(&part) {
            continue;
        }
        say(part.words());
        let dir = scratch.dir(part.name());
        let bench = Bench {
            draught: &draught,
            scratch: &dir,
            runs: args.runs,
            interrupt: &interrupt,
            filesystem: machine.filesystem(),
        };
        let report = part.measure(&bench).or_else(|error| {
            interrupt.check()?;
            say(&format!("{} failed: {error:#}", part.name()));
            failed.push(part.name());
            Ok::<_, anyhow::Error>(Report::failed(&error))
        })?;
        all.push((part, report));
        fs_err::remove_dir_all(dir)?;
    }
    let text = match args.format {
        Format::Text => text(&machine, args.runs, &all),
        Format::Json => format!("{:#}\n", as_json(&machine, args.runs, &all)),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    if !failed.is_empty() {
        bail!("measure {}", failed.join(", "));
    }
    Ok(())
}

fn text(machine: &Machine, runs: u32, all: &[(Part, Report)]) -> String {
    let mut text = format!("Medians of {runs} runs on {}.\n", machine.line());
    for (part, report) in all {
        text.push_str(&format!("\n### {}\n\n{}", part.words(), report.markdown()));
    }
    text
}

fn as_json(machine: &Machine, runs: u32, all: &[(Part, Report)]) -> Value {
    let parts: Vec<Value> = all
        .iter()
        .map(|(part, report)| json!({"part": part.name(), "report": report.json()}))
        .collect();
    json!({"machine": machine.json(), "runs": runs, "parts": parts})
}
