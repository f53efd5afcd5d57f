//! `draught metrics`.

use anyhow::{Context as _, Result};
use draught_node::{Client, Layout};

use crate::outcome::Outcome;
use crate::output;
use crate::settings::Settings;

/// Write the daemon's numbers as Prometheus reads them
///
/// `draught daemon --metrics ADDRESS` serves the same over HTTP.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, settings: &Settings) -> Result<Outcome> {
    let text = Client::new(Layout::new(&settings.root))
        .metrics()
        .context("ask the daemon")?;
    output::data(&text)?;
    Ok(Outcome::Done)
}
