//! The checks themselves, cheapest first, the tests last: the runner's summary closes the output.

use anyhow::{Result, bail};

use super::machine::Machine;
use super::tools;
use crate::run::{cargo, run, say, shown};

/// What a person may choose.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Install nothing: use what is there
    #[arg(long)]
    no_install: bool,
    /// Run the tests only, without formatting, lints and documentation
    #[arg(long)]
    tests_only: bool,
    /// Arguments for `cargo nextest run` in place of --workspace, e.g. `-p draught-tar`
    #[arg(last = true)]
    nextest: Vec<String>,
}

/// Checks that are not the test runner: all must pass.
const CHECKS: &[&[&str]] = &[
    &["fmt", "--all", "--check"],
    &[
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ],
    &["test", "--workspace", "--locked", "--doc", "--quiet"],
];

/// Installs, checks, tests. Every check runs even if an earlier one failed, so that one run says
/// all that is wrong.
pub(crate) fn run_all(args: &Args) -> Result<()> {
    let machine = Machine::look();
    if !args.no_install {
        tools::install(&machine)?;
    }
    let mut failed = Vec::new();
    if !args.tests_only {
        for check in CHECKS {
            say(&format!("cargo {}", check.join(" ")));
            if let Err(error) = run(&mut cargo(check)) {
                say(&format!("failed to {error:#}"));
                failed.push(format!("cargo {}", check[0]));
            }
        }
    }
    let mut tests = cargo(&["nextest", "run", "--locked", "--no-fail-fast"]);
    if args.nextest.is_empty() {
        tests.arg("--workspace");
    }
    tests
        .args(&args.nextest)
        .env("DRAUGHT_TEST_CACHE", &machine.cache);
    if machine.complete() {
        // Here everything can be had, so a test that skips is a test that hides something.
        tests.env("DRAUGHT_TESTS_MUST_RUN", "1");
    }
    say(&shown(&tests));
    if let Err(error) = run(&mut tests) {
        say(&format!("failed to {error:#}"));
        failed.push("cargo nextest".to_owned());
    }
    if !failed.is_empty() {
        bail!("pass: {}", failed.join(", "));
    }
    Ok(())
}
