//! `draught probe`.

use anyhow::Result;

use crate::args::Format;
use crate::outcome::Outcome;
use crate::output;
use crate::settings::Settings;

/// Say what this machine can do, and which transport would be used
///
/// Everything is found out by trying it, in the directory of --root: the filesystem there matters.
/// Exit code 1 if images can't be mounted here.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, settings: &Settings) -> Result<Outcome> {
    let probe = draught_node::probe(&settings.root);
    match settings.format {
        Format::Json => output::json(&probe)?,
        Format::Text => output::data(&probe.text())?,
    }
    Ok(if probe.missing().is_none() {
        Outcome::Done
    } else {
        Outcome::Faults
    })
}
