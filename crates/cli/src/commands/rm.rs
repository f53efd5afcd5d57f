//! `draught rm`.

use anyhow::{Context as _, Result};
use draught_node::{Client, Layout, Removed};

use crate::args::Format;
use crate::outcome::Outcome;
use crate::output;
use crate::settings::Settings;
use crate::units::Size;

/// Remove an image from this node, and give back what only it needs
///
/// What other images in the store refer to stays. An image that is mounted is not removed. The registry is
/// not asked, and nothing is removed there.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What it was mounted by, or its digest (sha256:…); `draught df` lists both
    #[arg(value_name = "REF")]
    reference: String,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Outcome> {
    let removed = Client::new(Layout::new(&settings.root))
        .rm(&args.reference)
        .with_context(|| format!("remove {}", args.reference))?;
    say(settings, &removed)?;
    Ok(Outcome::Done)
}

/// Says what was removed.
pub(crate) fn say(settings: &Settings, removed: &Removed) -> Result<()> {
    match settings.format {
        Format::Json => output::json(removed),
        Format::Text => output::line(&format!(
            "{} images and {} devices removed, {} given back",
            removed.images,
            removed.devices,
            Size(removed.bytes)
        )),
    }
}
