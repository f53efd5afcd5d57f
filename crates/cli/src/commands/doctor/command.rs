//! The command.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::check::{Check, State};
use super::{containerd, daemon, machine, registries, service};
use crate::args::Format;
use crate::commands::daemon::{HOSTS_DIRS, HOSTS_DIRS_ENV};
use crate::outcome::Outcome;
use crate::output;
use crate::settings::Settings;

/// Where the snapshotter listens when it is installed.
pub(crate) const SNAPSHOTTER: &str = "/run/draught/snapshotter.sock";
/// How it is called in containerd.
pub(crate) const NAME: &str = "draught";
/// Where containerd listens.
pub(crate) const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// Where its configuration is.
pub(crate) const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";

/// Look at the whole set-up and name what is wrong, and what to do about it
///
/// The machine, the daemon, containerd and what is between them. Nothing is changed. Exit code 1 when
/// something is wrong; hints are not wrong.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only say whether the daemon serves: for probes of readiness
    #[arg(long)]
    ready: bool,

    /// Where the snapshotter listens
    #[arg(long, value_name = "SOCKET", default_value = SNAPSHOTTER)]
    snapshotter: PathBuf,

    /// The snapshotter's name in containerd
    #[arg(long, value_name = "NAME", default_value = NAME)]
    name: String,

    /// containerd's socket
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "CONTAINERD_ADDRESS",
        default_value = CONTAINERD
    )]
    containerd: PathBuf,

    /// containerd's configuration
    #[arg(long, value_name = "FILE", default_value = CONTAINERD_CONFIG)]
    containerd_config: PathBuf,

    /// The daemon's directories with a hosts.toml or certificates for each registry
    #[arg(long, value_name = "DIR", env = HOSTS_DIRS_ENV, value_delimiter = ':', default_value = HOSTS_DIRS)]
    hosts_dir: Vec<PathBuf>,
}

/// What is looked at.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// The state directory.
    pub(crate) root: PathBuf,
    /// The snapshotter's name in containerd.
    pub(crate) name: String,
    /// The snapshotter's socket.
    pub(crate) snapshotter: PathBuf,
    /// containerd's socket.
    pub(crate) containerd: PathBuf,
    /// containerd's configuration.
    pub(crate) containerd_config: PathBuf,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Outcome> {
    let subject = Subject {
        root: settings.root.clone(),
        name: args.name.clone(),
        snapshotter: args.snapshotter.clone(),
        containerd: args.containerd.clone(),
        containerd_config: args.containerd_config.clone(),
    };
    let checks = if args.ready {
        ready(&subject)
    } else {
        all(&subject, &args.hosts_dir)
    };
    match settings.format {
        Format::Json => output::json(&checks)?,
        Format::Text => output::data(&text(&checks))?,
    }
    Ok(if checks.iter().any(Check::is_wrong) {
        Outcome::Faults
    } else {
        Outcome::Done
    })
}

fn ready(subject: &Subject) -> Vec<Check> {
    let mut checks = vec![daemon::serves(&subject.root)];
    // One that serves mounts of its own only has no such socket.
    if subject.snapshotter != Path::new(SNAPSHOTTER) || subject.snapshotter.exists() {
        checks.push(daemon::snapshotter_answers(&subject.snapshotter));
    }
    checks
}

fn all(subject: &Subject, hosts_dirs: &[PathBuf]) -> Vec<Check> {
    let mut checks = machine::checks(&subject.root);
    checks.extend(connections(subject));
    checks.extend(registries::checks(hosts_dirs));
    checks.extend(service::checks());
    checks
}

/// The daemon, containerd, and what is between them.
pub(crate) fn connections(subject: &Subject) -> Vec<Check> {
    let mut checks = daemon::checks(&subject.root, &subject.snapshotter);
    checks.extend(containerd::checks(subject));
    checks
}

fn text(checks: &[Check]) -> String {
    let mut text: String = checks.iter().map(Check::text).collect();
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let (wrong, hints) = (count(State::Wrong), count(State::Hint));
    text.push_str(&match wrong {
        0 => format!("all is well; {hints} hints\n"),
        _ => format!("{wrong} wrong, {hints} hints\n"),
    });
    text
}
