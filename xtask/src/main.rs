//! This crate is the project's chores: `cargo xtask test` installs what the tests need and runs
//! everything that a change must pass.
#![forbid(unsafe_code)]

mod bench;
mod run;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of the project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Installs what the tests need, if it is missing, and runs all checks and tests
    Test(test::Args),
    /// Measures, beside others that do the same
    Bench(bench::Args),
}

#[expect(
    clippy::print_stderr,
    reason = "the last word of a program to its user"
)]
fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.chore {
        Chore::Test(args) => test::run_all(&args),
        Chore::Bench(args) => bench::run_benchmark(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: failed to {error:#}");
            ExitCode::FAILURE
        }
    }
}
