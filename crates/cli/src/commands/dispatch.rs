//! From what was typed to the command.

use anyhow::Result;

use super::{
    check, convert, daemon, demo, df, doctor, gc, inspect, install, map, materialize, metrics,
    mount, probe, profile, ps, registry, rm, status, umount,
};
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
        Command::Status(args) => status::run(&args, settings),
        Command::Df(args) => df::run(&args, settings),
        Command::Rm(args) => rm::run(&args, settings),
        Command::Gc(args) => gc::run(&args, settings),
        Command::Map(args) => map::run(&args, settings),
        Command::Metrics(args) => metrics::run(&args, settings),
        Command::Profile(args) => profile::run(&args, settings),
        Command::Umount(args) => umount::run(&args, settings),
        Command::Inspect(args) => inspect::run(&args, settings),
        Command::Materialize(args) => materialize::run(&args, settings),
        Command::Install(args) => install::run(&args, settings),
        Command::Doctor(args) => doctor::run(&args, settings),
        Command::Convert(args) => convert::run(&args, settings),
        Command::Check(args) => check::run(&args, settings),
        Command::Demo(args) => demo::run(&args, settings),
        Command::Registry(args) => registry::run(&args, settings),
        Command::DemoInside(args) => demo::inside::run(&args),
    }
}
