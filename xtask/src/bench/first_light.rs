//! `cargo xtask bench first-light`: what converting and reading cost, beside everybody else.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use draught_testkit::Scratch;
use serde_json::{Value, json};

use super::convert::{self, BATCHED, Contender, Conversions, Input, NydusImage};
use super::draught::Draught;
use super::estargz::Estargz;
use super::image::{Image, Which};
use super::interrupt::Interrupt;
use super::machine::Machine;
use super::read::Readings;
use crate::run::say;

/// Converting and reading, beside zstd, nydus, eStargz, ext4 and a local EROFS
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Only this image
    #[arg(long)]
    only: Option<Which>,
    /// Only this half
    #[arg(long)]
    part: Option<Part>,
    /// How often everything is measured; medians are shown
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
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
    Convert,
    Read,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables in Markdown, medians
    Text,
    /// All values of all runs
    Json,
}

/// What was measured with one image.
struct Measured {
    which: Which,
    conversions: Option<Conversions>,
    readings: Option<Readings>,
}

/// Runs the benchmark and prints its numbers.
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
    for which in Which::ALL {
        if args.only.is_none_or(|only| only == which) {
            let (letter, _) = which.words();
            let dir = scratch.dir(letter);
            all.push(measure(args, &draught, &machine, which, &dir, &interrupt)?);
            fs_err::remove_dir_all(dir)?;
        }
    }
    let text = match args.format {
        Format::Text => text(&machine, args.runs, &all),
        Format::Json => format!("{:#}\n", as_json(&machine, args.runs, &all)),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn measure(
    args: &Args,
    draught: &Draught,
    machine: &Machine,
    which: Which,
    scratch: &Path,
    interrupt: &Interrupt,
) -> Result<Measured> {
    let (letter, words) = which.words();
    say(&format!("image {letter}: {words}"));
    let image = Image::prepare(which, scratch)?;
    let wanted = |part: Part| args.part.is_none_or(|only| only == part);
    let conversions = wanted(Part::Convert)
        .then(|| conversions(draught, &image, scratch, args.runs, interrupt))
        .transpose()?;
    let filesystem = machine.filesystem();
    let readings = wanted(Part::Read)
        .then(|| Readings::measure(draught, &image, filesystem, scratch, args.runs, interrupt))
        .transpose()?;
    Ok(Measured {
        which,
        conversions,
        readings,
    })
}

/// Converts with everybody.
fn conversions(
    draught: &Draught,
    image: &Image,
    scratch: &Path,
    runs: u32,
    interrupt: &Interrupt,
) -> Result<Conversions> {
    let inputs = [Input::Tar, Input::Gzip, Input::Directory];
    let estargz = Estargz::start(&image.gzip_layout, scratch)?;
    let nydus = NydusImage::installed();
    let mut contenders: Vec<Contender<'_>> = Vec::new();
    for input in inputs {
        contenders.push(convert::draught(draught, image, input, &[]));
        contenders.push(convert::draught(draught, image, input, &BATCHED));
    }
    contenders.extend(convert::zstd(image));
    contenders.push(convert::inflating(image));
    if let Some(nydus) = &nydus {
        contenders.extend(inputs.map(|input| convert::nydus(nydus, image, input)));
    }
    contenders.extend(estargz.as_ref().map(convert::ctr_remote));
    convert::measure(&contenders, image, scratch, runs, interrupt)
}

fn text(machine: &Machine, runs: u32, all: &[Measured]) -> String {
    let mut text = format!("Medians of {runs} runs on {}.\n", machine.line());
    for measured in all {
        let (letter, words) = measured.which.words();
        text.push_str(&format!("\n### {letter}: {words}\n"));
        if let Some(conversions) = &measured.conversions {
            text.push_str("\nConverting; the last column is the wall time as a multiple of draught's with the same input:\n\n");
            text.push_str(&conversions.table());
        }
        if let Some(readings) = &measured.readings {
            text.push_str(&format!(
                "\nReading, {}; × is the multiple of draught's:\n\n",
                readings.tree
            ));
            text.push_str(&readings.table());
        }
    }
    text
}

fn as_json(machine: &Machine, runs: u32, all: &[Measured]) -> Value {
    let images: Vec<Value> = all
        .iter()
        .map(|measured| {
            let (letter, words) = measured.which.words();
            let convert = measured.conversions.as_ref().map(|it| it.results.json());
            let read = measured.readings.as_ref().map(|it| it.results.json());
            json!({"image": letter, "words": words, "convert": convert, "read": read})
        })
        .collect();
    json!({"machine": machine.json(), "runs": runs, "images": images})
}
