//! `draught umount`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use draught_node::{Client, Layout};

use crate::outcome::Outcome;
use crate::settings::Settings;

/// Unmount an image
///
/// What was fetched stays in the store. Fails while something below the directory is in use.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The directory that it is mounted on
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Outcome> {
    let dir = fs_err::canonicalize(&args.dir).context("find the directory to unmount")?;
    Client::new(Layout::new(&settings.root))
        .umount(&dir)
        .with_context(|| format!("unmount {}", dir.display()))?;
    Ok(Outcome::Done)
}
