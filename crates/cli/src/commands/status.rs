//! `draught status`.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use draught_node::{Client, Layout, MountStatus};

use crate::args::Format;
use crate::outcome::Outcome;
use crate::output;
use crate::settings::Settings;
use crate::units::Size;

/// Say how an image is served: whether lazily and if not why, how far it is filled, what was drawn and shared
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What it was mounted by, its digest, or the directory that it is mounted on
    #[arg(value_name = "REF")]
    reference: String,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Outcome> {
    let status = Client::new(Layout::new(&settings.root))
        .status()
        .context("ask the daemon")?;
    let name = &args.reference;
    let dir = fs_err::canonicalize(name).ok();
    let is_asked = |mount: &&MountStatus| {
        mount.reference == *name || mount.digest == *name || Some(&mount.dir) == dir.as_ref()
    };
    let mounts: Vec<&MountStatus> = status.mounts.iter().filter(is_asked).collect();
    if mounts.is_empty() {
        bail!("find {name}: nothing of that name is mounted; `draught ps` lists what is");
    }
    match settings.format {
        Format::Json => output::json(&mounts)?,
        Format::Text => {
            let texts: Vec<String> = mounts.into_iter().map(text).collect();
            output::data(&texts.join("\n"))?;
        }
    }
    Ok(Outcome::Done)
}

fn text(mount: &MountStatus) -> String {
    let lazy = match (mount.lazy, &mount.why) {
        (true, None) => "yes".to_owned(),
        (true, Some(why)) => format!("yes: {why}"),
        (false, Some(why)) => format!("no: {why}"),
        (false, None) => "no".to_owned(),
    };
    let share = |part: u64| match (u128::from(part) * 1000).checked_div(mount.bytes_total.into()) {
        None => String::new(),
        Some(permille) => format!(" ({}.{} %)", permille / 10, permille % 10),
    };
    let waited = |us: u64| format!("{:.1} ms", Duration::from_micros(us).as_secs_f64() * 1000.0);
    let lines = [
        ("image", mount.reference.clone()),
        ("digest", mount.digest.clone()),
        ("mounted on", mount.dir.display().to_string()),
        ("transport", mount.transport.clone()),
        ("lazy", lazy),
        ("total", Size(mount.bytes_total).to_string()),
        (
            "present",
            format!(
                "{}{}",
                Size(mount.bytes_present),
                share(mount.bytes_present)
            ),
        ),
        (
            "shared",
            format!(
                "{}{} was known when it was attached",
                Size(mount.bytes_shared),
                share(mount.bytes_shared)
            ),
        ),
        (
            "drawn",
            format!(
                "{} in {} requests",
                Size(mount.bytes_fetched),
                mount.requests
            ),
        ),
        (
            "waits",
            format!(
                "{}; half within {}, 99 of 100 within {}",
                mount.faults,
                waited(mount.fault_median_us),
                waited(mount.fault_p99_us)
            ),
        ),
        ("sources", mount.sources.join(", ")),
        (
            "last error",
            mount
                .last_error
                .clone()
                .unwrap_or_else(|| "none".to_owned()),
        ),
    ];
    lines
        .map(|(name, value)| format!("{name:<11} {value}\n"))
        .concat()
}
