//! `cargo xtask bench`: the program as users have it, measured by the crate `bench`.

use anyhow::Result;

use crate::run::{cargo, run};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The measurement and its options: `first-light [--small]`, or `--help`
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    bench: Vec<String>,
}

/// Builds both for release, then measures.
pub(crate) fn run_bench(args: &Args) -> Result<()> {
    run(&mut cargo(&[
        "build",
        "--release",
        "--locked",
        "--package",
        "draught",
    ]))?;
    let mut bench = cargo(&[
        "run",
        "--release",
        "--locked",
        "--package",
        "draught-bench",
        "--",
    ]);
    run(bench.args(&args.bench))
}
