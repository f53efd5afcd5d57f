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
    let mut text = format!(
        "keeper {}, worker {}, version {}\n{}",
        status.keeper_pid,
        status.worker_pid,
        status.version,
        output::table(&rows)
    );
    let pulled: Vec<_> = status.layers.iter().filter(|layer| !layer.lazy).collect();
    if !pulled.is_empty() {
        let head = ["REF", "LAYER", "NOT LAZY BECAUSE"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        let unknown = || "-".to_owned();
        rows.extend(pulled.into_iter().map(|layer| {
            vec![
                layer.reference.clone(),
                layer.digest.clone().unwrap_or_else(unknown),
                layer.why.clone().unwrap_or_else(unknown),
            ]
        }));
        text.push('\n');
        text.push_str(&output::table(&rows));
    }
    text
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
