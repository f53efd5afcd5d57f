//! This crate is measurements: the program beside its peers, on the same machine and the same data.
#![forbid(unsafe_code)]

mod first_light;
mod machine;
mod measure;
mod table;
mod walk;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measurements of the project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Converting images, and reading them in every state, beside nydus, zstd, ext4 and EROFS
    FirstLight(first_light::Args),
}

#[expect(
    clippy::print_stderr,
    reason = "the last word of a program to its user"
)]
fn main() -> ExitCode {
    let result = match Args::parse().bench {
        Bench::FirstLight(args) => first_light::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: failed to {error:#}");
            ExitCode::FAILURE
        }
    }
}
