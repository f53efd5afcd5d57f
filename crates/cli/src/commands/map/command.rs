//! The command.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use draught_node::{Client, Layout};

use crate::args::Format;
use crate::map_svg;
use crate::outcome::Outcome;
use crate::output;
use crate::settings::Settings;

/// Draw which parts of an image were touched, when, and where they came from
///
/// The picture shows the requests and the reads that waited since the mount, the files that were waited for
/// longest, and every file of the image by what became of it. With --format json it is the same as numbers.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What the image was mounted by, or its digest
    #[arg(value_name = "REF")]
    reference: String,

    /// The picture: SVG, which every browser shows; - is standard output
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Outcome> {
    let trace = Client::new(Layout::new(&settings.root))
        .trace(&args.reference)
        .with_context(|| format!("ask what happened to {}", args.reference))?;
    let text = match settings.format {
        Format::Json => output::json_text(&trace)?,
        Format::Text => map_svg::svg(&trace),
    };
    output::to(&args.output, &text)?;
    Ok(Outcome::Done)
}
