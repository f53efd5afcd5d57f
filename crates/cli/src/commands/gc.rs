//! `draught gc`.

use anyhow::{Context as _, Result};
use draught_node::{Client, Layout};

use super::rm;
use crate::outcome::Outcome;
use crate::settings::Settings;
use crate::units::Span;

/// Remove what no image in the store refers to, and images that were not used for long
///
/// The daemon does the former by itself when it starts, and evicts images when the store is larger than
/// `draught daemon --cache-size-max` says. What is mounted is never touched; readers go on meanwhile.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also remove images that nobody mounted or unmounted for so long, for example 24h; 0s: all that are
    /// not mounted
    #[arg(long, value_name = "TIME")]
    unused_for: Option<Span>,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Outcome> {
    let removed = Client::new(Layout::new(&settings.root))
        .gc(args.unused_for.map(|span| span.0))
        .context("collect what nobody refers to")?;
    rm::say(settings, &removed)?;
    Ok(Outcome::Done)
}
