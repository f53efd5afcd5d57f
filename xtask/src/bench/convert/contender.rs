//! Who converts.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use draught_testkit::need;

use super::nydus::NydusImage;
use crate::bench::draught::Draught;
use crate::bench::estargz::Estargz;
use crate::bench::image::{Image, oci};
use crate::bench::measure::{self, Cost};

/// Options of draught that make small files share compressed units.
pub(crate) const BATCHED: [&str; 2] = ["--batch-size", "128KiB"];

/// What is converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
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
pub(super) struct Outcome {
    pub(super) wall_s: f64,
    pub(super) cost: Option<Cost>,
    pub(super) bytes: Option<u64>,
}

type Work<'a> = Box<dyn Fn(&Path) -> Result<Outcome> + 'a>;

/// A program, its options and its input.
pub(crate) struct Contender<'a> {
    /// What it is called in tables.
    pub(crate) name: String,
    pub(super) input: Input,
    /// Converts once, into an empty directory.
    pub(super) work: Work<'a>,
}

impl std::fmt::Debug for Contender<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contender")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<'a> Contender<'a> {
    fn new(program: &str, input: Input, work: Work<'a>) -> Self {
        Self {
            name: format!("{program}, {}", input.words()),
            input,
            work,
        }
    }
}

/// draught with more options, from a local layout or directory to a local layout.
pub(crate) fn draught<'a>(
    draught: &'a Draught,
    image: &Image,
    input: Input,
    args: &'a [&'a str],
) -> Contender<'a> {
    let from = match input {
        Input::Tar => oci(&image.plain_layout),
        Input::Gzip => oci(&image.gzip_layout),
        Input::Directory => format!("dir:{}", image.tree.display()),
    };
    let program: Vec<&str> = std::iter::once("draught")
        .chain(args.iter().copied())
        .collect();
    let work = move |out: &Path| {
        let to = format!("oci:{}:latest", out.join("layout").display());
        program_work(&mut draught.convert(out, &from, &to, args), out)
    };
    Contender::new(&program.join(" "), input, Box::new(work))
}

/// What compressing the tar archive as a whole takes; nothing where zstd is not installed.
pub(crate) fn zstd(image: &Image) -> Option<Contender<'_>> {
    need::find("zstd")?;
    let work = |out: &Path| {
        let mut command = Command::new("zstd");
        command.args(["-q", "-3", "-T2"]).arg(&image.archive);
        program_work(command.arg("-o").arg(out.join("zst")), out)
    };
    Some(Contender::new("zstd -3 -T2", Input::Tar, Box::new(work)))
}

/// What the inflating alone takes: no converter can be faster than that.
pub(crate) fn inflating(image: &Image) -> Contender<'_> {
    let work = |_: &Path| {
        let begun = Instant::now();
        let file = fs_err::File::open(&image.gzipped)?;
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
    };
    Contender::new("inflating alone, zlib-rs", Input::Gzip, Box::new(work))
}

/// nydus-image, with data and metadata in one blob, as deployed snapshotters want it and as draught writes
/// it.
pub(crate) fn nydus<'a>(nydus: &'a NydusImage, image: &'a Image, input: Input) -> Contender<'a> {
    let source = match input {
        Input::Tar => &image.archive,
        Input::Gzip => &image.gzipped,
        Input::Directory => &image.tree,
    };
    let work = move |out: &Path| {
        let mut command = nydus.create(input, source);
        command.arg("--blob-inline-meta");
        program_work(command.arg("--blob").arg(out.join("blob")), out)
    };
    Contender::new(nydus.name(), input, Box::new(work))
}

/// eStargz' own tool.
pub(crate) fn ctr_remote(estargz: &Estargz) -> Contender<'_> {
    let work = |_: &Path| {
        let (cost, bytes) = estargz.convert()?;
        Ok(Outcome {
            wall_s: cost.wall_s,
            cost: Some(cost),
            bytes: Some(bytes),
        })
    };
    Contender::new("ctr-remote --estargz", Input::Gzip, Box::new(work))
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
