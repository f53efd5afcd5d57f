//! The command.

use std::path::PathBuf;

use anyhow::{Result, bail};
use draught_oci::Location;

use super::show;
use super::stage::Stage;
use crate::args::Format;
use crate::outcome::Outcome;
use crate::settings::Settings;
use crate::units::Size;
use crate::{asynchronous, output};

/// Show on this machine what lazy reading is worth
///
/// Makes a real image of this machine's own files: a language runtime, its libraries, and several hundred
/// MiB of other files to carry along, as images do. Pushes it to an embedded registry on loopback, converts
/// it, and runs the program in it twice: after pulling and unpacking all of it, and from a lazy mount.
/// Needs no network and nothing installed, but root to mount. Everything is removed at the end.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  draught demo
  draught demo docker.io/library/python:3.12 -- python3 -c 'print(1)'")]
pub(crate) struct Args {
    /// Use this image instead; it is copied to the embedded registry first. Its program runs with another
    /// root directory and nothing else: without /proc, /dev and a network of its own
    #[arg(value_name = "IMAGE")]
    pub(crate) image: Option<Location>,

    /// How much of this machine's files the image carries along, besides the program
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "400MiB",
        conflicts_with = "image"
    )]
    pub(crate) size: Size,

    /// Where to work; needs some three times the size of the image
    #[arg(long, value_name = "DIR", env = "TMPDIR", default_value = "/var/tmp")]
    pub(crate) scratch: PathBuf,

    /// What to run in the image [default: what its configuration says]
    #[arg(value_name = "COMMAND", last = true, requires = "image")]
    pub(crate) command: Vec<String>,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Outcome> {
    // Outlives the asynchronous part, so that nothing in it is in use when it is taken down; made
    // within, because from there on a signal no longer kills us.
    let mut stage = None;
    let report = asynchronous::run(async {
        let stage = stage.insert(Stage::new(&args.scratch)?);
        let ability = draught_node::probe(&stage.join(""));
        if let Some(missing) = ability.missing() {
            bail!("show it: {missing}");
        }
        if !rustix::process::geteuid().is_root() {
            // Mounting works for anybody; running a program with another root directory does not.
            bail!(
                "show it: it runs a program with another root directory, which needs root; \"draught mount\" works \
                 for you by {}",
                ability
                    .transport
                    .map_or("nothing", draught_node::Transport::name)
            );
        }
        show::show(args, settings, stage, &ability).await
    })?;
    drop(stage);
    match settings.format {
        Format::Text => output::data(&report.text())?,
        Format::Json => output::json(&report)?,
    }
    Ok(Outcome::Done)
}
