//! `draught ps`.

use anyhow::{Context as _, Result};
use draught_node::{Client, DaemonStatus, Layout, MountStatus};

use crate::args::Format;
use crate::outcome::Outcome;
use crate::output;
use crate::settings::Settings;
use crate::units::Size;

/// List what is mounted, and how much of it is on this node
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, settings: &Settings) -> Result<Outcome> {
    let status = Client::new(Layout::new(&settings.root))
        .status()
        .context("ask the daemon")?;
    match settings.format {
        Format::Json => output::json(&status)?,
        Format::Text => output::data(&text(&status))?,
    }
    Ok(Outcome::Done)
}

fn text(status: &DaemonStatus) -> String {
    let head = [
        "REF",
        "DIR",
        "TRANSPORT",
        "PRESENT",
        "TOTAL",
        "FETCHED",
        "FAULTS",
        "LAST ERROR",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(status.mounts.iter().map(row));
    format!(
        "keeper {}, worker {}, version {}\n{}",
        status.keeper_pid,
        status.worker_pid,
        status.version,
        output::table(&rows)
    )
}

fn row(mount: &MountStatus) -> Vec<String> {
    let dir = mount.dir.display();
    vec![
        mount.reference.clone(),
        if mount.detached {
            format!("({dir}, unmounted, in use)")
        } else {
            dir.to_string()
        },
        mount.transport.clone(),
        Size(mount.bytes_present).to_string(),
        Size(mount.bytes_total).to_string(),
        Size(mount.bytes_fetched).to_string(),
        mount.faults.to_string(),
        mount.last_error.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}
