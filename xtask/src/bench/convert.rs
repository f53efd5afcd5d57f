//! Converting: draught, and what others do to the same data.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use draught_testkit::need::{self, Nydus};

use super::draught::Draught;
use super::estargz::Estargz;
use super::image::{Image, oci};
use super::interrupt::Interrupt;
use super::measure::{self, Cost};
use super::results::{Metric, Results, number};
use super::table;
use crate::run::say;

/// Who needs longer than this is not run again: no ratio of it depends on noise.
const AGAIN_BELOW_S: f64 = 60.0;

/// Options of draught that make small files share compressed units.
const BATCHED: [&str; 2] = ["--batch-size", "128KiB"];

/// What is converted; draught with the same input is what a contender is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Tar,
    Gzip,
    Directory,
}

impl Input {
    fn words(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::Gzip => "tar.gz",
            Self::Directory => "directory",
        }
    }
}

/// What a run cost, as far as that can be known, and the size of what it made.
struct Outcome {
    wall_s: f64,
    cost: Option<Cost>,
    bytes: Option<u64>,
}

type Work<'a> = Box<dyn Fn(&Path) -> Result<Outcome> + 'a>;

struct Contender<'a> {
    name: String,
    work: Work<'a>,
}

/// All numbers of converting one image.
#[derive(Debug)]
pub(crate) struct Conversions {
    /// The numbers.
    pub(crate) results: Results,
    inputs: Vec<(String, Input)>,
}

/// Converts an image `runs` times with each contender, one after the other in each run.
pub(crate) fn measure(
    draught: &Draught,
    image: &Image,
    scratch: &Path,
    runs: u32,
    interrupt: &Interrupt,
) -> Result<Conversions> {
    let estargz = Estargz::start(&image.gzip_layout, scratch)?;
    let mut contenders = ours(draught, image);
    contenders.extend(peers(image, estargz.as_ref()));
    for input in [&image.archive, &image.gzipped] {
        // All find their input in memory.
        io::copy(&mut fs_err::File::open(input)?, &mut io::sink())?;
    }
    let mut results = Results::default();
    for run in 1..=runs {
        for (_, contender) in &contenders {
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
        .map(|(input, contender)| (contender.name.clone(), *input));
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

fn named(input: Input, program: &str) -> String {
    format!("{program}, {}", input.words())
}

fn ours<'a>(draught: &'a Draught, image: &'a Image) -> Vec<(Input, Contender<'a>)> {
    let mut contenders = Vec::new();
    for (input, from) in [
        (Input::Tar, oci(&image.plain_layout)),
        (Input::Gzip, oci(&image.gzip_layout)),
        (Input::Directory, format!("dir:{}", image.tree.display())),
    ] {
        for (program, args) in [
            ("draught", &[][..]),
            ("draught --batch-size 128KiB", &BATCHED[..]),
        ] {
            let from = from.clone();
            let work: Work<'_> = Box::new(move |out| {
                let to = format!("oci:{}:latest", out.join("layout").display());
                program_work(&mut draught.convert(out, &from, &to, args), out)
            });
            let name = named(input, program);
            contenders.push((input, Contender { name, work }));
        }
    }
    contenders
}

fn peers<'a>(image: &'a Image, estargz: Option<&'a Estargz>) -> Vec<(Input, Contender<'a>)> {
    let mut contenders = Vec::new();
    let mut add = |input: Input, program: &str, work: Work<'a>| {
        let name = named(input, program);
        contenders.push((input, Contender { name, work }));
    };
    if need::find("zstd").is_some() {
        add(
            Input::Tar,
            "zstd -3 -T2",
            Box::new(|out| {
                let mut command = Command::new("zstd");
                command.args(["-q", "-3", "-T2"]).arg(&image.archive);
                program_work(command.arg("-o").arg(out.join("zst")), out)
            }),
        );
    }
    add(
        Input::Gzip,
        "inflating alone, zlib-rs",
        Box::new(|_| inflate(&image.gzipped)),
    );
    if let Some(nydus) = need::nydus() {
        for (input, kind, source) in [
            (Input::Tar, "tar-rafs", &image.archive),
            (Input::Gzip, "targz-rafs", &image.gzipped),
            (Input::Directory, "dir-rafs", &image.tree),
        ] {
            let nydus = nydus.clone();
            add(
                input,
                "nydus-image 2.2",
                Box::new(move |out| {
                    program_work(&mut nydus_create(&nydus, kind, source, out), out)
                }),
            );
        }
    }
    if let Some(estargz) = estargz {
        add(
            Input::Gzip,
            "ctr-remote --estargz",
            Box::new(|_| {
                let (cost, bytes) = estargz.convert()?;
                Ok(Outcome {
                    wall_s: cost.wall_s,
                    cost: Some(cost),
                    bytes: Some(bytes),
                })
            }),
        );
    }
    contenders
}

/// Data and metadata in one blob, as deployed snapshotters want it and as draught writes it.
fn nydus_create(nydus: &Nydus, kind: &str, source: &Path, out: &Path) -> Command {
    let mut command = Command::new(&nydus.image);
    command.args(["create", "--log-level", "warn", "--fs-version", "6"]);
    command.args(["--type", kind, "--blob-inline-meta", "--blob"]);
    command.arg(out.join("blob")).arg(source);
    command
}

/// Runs a program that writes all it makes into `out`.
fn program_work(command: &mut Command, out: &Path) -> Result<Outcome> {
    let log = out.with_extension("log");
    let cost = measure::run(command, &log)?;
    Ok(Outcome {
        wall_s: cost.wall_s,
        cost: Some(cost),
        bytes: Some(files_bytes(out)?),
    })
}

/// What the inflating alone takes: no converter can be faster than that.
fn inflate(gzipped: &Path) -> Result<Outcome> {
    let begun = Instant::now();
    let file = fs_err::File::open(gzipped)?;
    let file = io::BufReader::with_capacity(256 << 10, file);
    io::copy(
        &mut flate2::bufread::MultiGzDecoder::new(file),
        &mut io::sink(),
    )?;
    Ok(Outcome {
        wall_s: begun.elapsed().as_secs_f64(),
        cost: None,
        bytes: None,
    })
}

/// The sizes of all files in a directory.
fn files_bytes(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs_err::read_dir(dir)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() {
            files_bytes(&entry.path())?
        } else {
            entry.metadata()?.len()
        };
    }
    Ok(sum)
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
        for metric in [Metric::Wall, Metric::Cpu, Metric::PeakRss, Metric::Bytes] {
            let median = self.results.median(name, metric);
            row.push(median.map_or_else(String::new, |value| metric.shown(value)));
        }
        row.push(self.results.values(name, Metric::Wall).len().to_string());
        let ratio = self
            .results
            .ratio(name, &named(*input, "draught"), Metric::Wall);
        row.push(ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")));
        row
    }
}
