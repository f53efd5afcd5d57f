//! `draught profile`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use draught_node::{Client, Layout};
use draught_profile::{Limits, Profile};

use crate::outcome::Outcome;
use crate::output;
use crate::settings::Settings;

/// Move what starts of an image touch from one node to another
///
/// The daemon records always which parts of an image were touched first, and prefetches them at the next
/// mount. A profile is that recording as text, by paths: it fits other versions of the image and other
/// formats too. `draught convert --prefetch` writes one into an image.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write what was recorded of an image
    Export {
        /// What the image was mounted by, or its digest
        #[arg(value_name = "REF")]
        reference: String,

        /// Write it to this file instead of standard output
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Use a profile for an image: what it names is placed together and fetched as soon as it is mounted
    Import {
        /// The image's reference
        #[arg(value_name = "REF")]
        reference: String,

        /// The profile; - is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Outcome> {
    let client = Client::new(Layout::new(&settings.root));
    match &args.what {
        What::Export { reference, output } => {
            let text = client
                .export_profile(reference)
                .with_context(|| format!("export the profile of {reference}"))?;
            match output {
                None => output::data(&text)?,
                Some(file) => output::to(file, &text)?,
            }
        }
        What::Import { reference, file } => {
            let text = read_text(file)?;
            let executable = std::env::current_exe().context("find this program")?;
            client.ensure_running(&executable)?;
            client
                .import_profile(reference, &text)
                .with_context(|| format!("use {} for {reference}", file.display()))?;
        }
    }
    Ok(Outcome::Done)
}

fn read_text(file: &Path) -> Result<String> {
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin().lock())
    } else {
        fs_err::read_to_string(file)
    };
    text.with_context(|| format!("read {}", file.display()))
}

/// Reads a profile; `-` is standard input.
pub(crate) fn read(file: &Path) -> Result<Profile> {
    Profile::parse(read_text(file)?.as_bytes(), &Limits::default())
        .with_context(|| format!("understand {} as a profile", file.display()))
}
