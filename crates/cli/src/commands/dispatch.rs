//! From what was typed to the command.

use anyhow::Result;

use super::{check, convert, daemon, demo, inspect, mount, probe, ps, registry, umount};
use crate::args::Command;
use crate::outcome::Outcome;
use crate::settings::Settings;

/// Runs a command.
pub(crate) fn run(command: Command, settings: &Settings) -> Result<Outcome> {
    match command {
        Command::Daemon(args) => daemon::run(&args, settings),
        Command::Mount(args) => mount::run(&args, settings),
        Command::Probe(args) => probe::run(&args, settings),
        Command::Ps(args) => ps::run(&args, settings),
        Command::Umount(args) => umount::run(&args, settings),
        Command::Inspect(args) => inspect::run(&args, settings),
        Command::Convert(args) => convert::run(&args, settings),
        Command::Check(args) => check::run(&args, settings),
        Command::Demo(args) => demo::run(&args, settings),
        Command::Registry(args) => registry::run(&args, settings),
        Command::DemoInside(args) => demo::inside::run(&args),
    }
}
