//! This crate is the one program of the project, `draught`.
//!
//! Data goes to standard output, words to standard error. Two stages, as everywhere a command line
//! is more than a flag or two: [`args`] is what was typed, [`settings`] what it means. Every command
//! is a module of [`commands`] and does its work through the libraries.
#![forbid(unsafe_code)]

mod args;
mod asynchronous;
mod commands;
mod logging;
mod map_svg;
mod open;
mod outcome;
mod output;
mod progress;
mod settings;
mod units;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // Usage errors end here, with exit code 2 and the usage on standard error.
    let args = args::Args::parse();
    let outcome = settings::Settings::resolve(args.global).and_then(|settings| {
        logging::start(&settings);
        commands::run(args.command, &settings)
    });
    outcome::report(outcome)
}
