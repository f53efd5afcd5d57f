//! What can be typed. What it means is in [`crate::settings`].

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::commands::{
    check, convert, daemon, demo, df, doctor, gc, inspect, install, map, materialize, metrics,
    mount, probe, profile, ps, registry, rm, status, umount,
};

/// Container images drawn from the registry as they are read.
///
/// An image becomes mountable as soon as its metadata is there; its files are fetched when a process reads
/// them, and every chunk is verified before it is seen.
#[derive(Debug, Parser)]
#[command(
    name = "draught",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = EXIT_CODES,
    max_term_width = 100
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed, or faults were found
  2    the command line was wrong
  130  interrupted";

/// Where root's state lives.
const SYSTEM_ROOT: &str = "/var/lib/draught";

/// Where state lives unless somebody says otherwise. An ordinary user has a place of his own, as the XDG base
/// directory specification has it.
fn default_root() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return SYSTEM_ROOT.into();
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let data = set("XDG_DATA_HOME").map(PathBuf::from);
    let data = data.or_else(|| Some(PathBuf::from(set("HOME")?).join(".local/share")));
    data.map_or_else(|| SYSTEM_ROOT.into(), |data| data.join("draught"))
}

/// Options of every command.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Where all state lives: fetched data, daemon sockets, mounts [default: /var/lib/draught; of ordinary
    /// users: ~/.local/share/draught]
    #[arg(
        long,
        value_name = "DIR",
        env = "DRAUGHT_ROOT",
        default_value_os_t = default_root(),
        hide_default_value = true,
        global = true
    )]
    pub(crate) root: PathBuf,

    /// Speak plain HTTP to this registry; loopback may always. Can be repeated
    #[arg(long, value_name = "HOST[:PORT]", global = true)]
    pub(crate) plain_http: Vec<String>,

    /// How results are written to standard output: text for people, json for programs
    #[arg(long, value_enum, default_value_t = Format::Text, hide_possible_values = true, global = true)]
    pub(crate) format: Format,

    /// How progress is shown on standard error: auto, bar, plain (a line now and then), json (an object a
    /// line) or none; auto is a bar on a terminal, JSON with --format json, else plain lines
    #[arg(long, value_enum, default_value_t = Progress::Auto, hide_possible_values = true, global = true)]
    pub(crate) progress: Progress,

    /// What to log to standard error: a level (error, warn, info, debug, trace), or one per
    /// module, e.g. warn,draught_source=debug
    #[arg(
        long,
        value_name = "FILTER",
        env = "DRAUGHT_LOG", value_parser = log_filter,
        default_value = "warn",
        global = true
    )]
    pub(crate) log: String,

    /// How log lines look: text or json
    #[arg(
        long,
        value_enum,
        env = "DRAUGHT_LOG_FORMAT",
        default_value_t = Format::Text,
        hide_possible_values = true,
        global = true
    )]
    pub(crate) log_format: Format,
}

/// Accepts what the logger understands.
fn log_filter(text: &str) -> Result<String, String> {
    let checked: Result<EnvFilter, _> = text.parse();
    checked
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

/// For whom results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// A bar on a terminal, JSON lines with --format json, else plain lines
    Auto,
    /// A bar that is redrawn
    Bar,
    /// A line now and then
    Plain,
    /// A JSON object a line
    Json,
    /// Not at all
    None,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Mount(mount::Args),
    Umount(umount::Args),
    Ps(ps::Args),
    Status(status::Args),
    Map(map::Args),
    Df(df::Args),
    Rm(rm::Args),
    Gc(gc::Args),
    Profile(profile::Args),
    Metrics(metrics::Args),
    Daemon(daemon::Args),
    Probe(probe::Args),
    Install(install::Args),
    Doctor(doctor::Args),
    Convert(Box<convert::Args>),
    Check(check::Args),
    Inspect(inspect::Args),
    Materialize(materialize::Args),
    Registry(registry::Args),
    Demo(demo::Args),
    #[command(name = demo::inside::SUBCOMMAND, hide = true)]
    DemoInside(demo::inside::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
