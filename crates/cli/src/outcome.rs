//! How a command ended, and the exit code for it.

use std::process::ExitCode;

use anyhow::Result;

use crate::output;

/// How a command ended when it could do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is well.
    Done,
    /// The work was to look for faults, and there are some; they have been reported.
    Faults,
}

/// The person, or the system, told us to stop.
#[derive(Debug, thiserror::Error)]
#[error("be finished: interrupted")]
pub(crate) struct Interrupted;

/// As shells have it: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// Says what went wrong, once, with all causes, and gives the exit code.
pub(crate) fn report(outcome: Result<Outcome>) -> ExitCode {
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Faults) => ExitCode::FAILURE,
        Err(error) if error.is::<output::Closed>() => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => {
            output::say("draught: interrupted");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            output::say(&format!("draught: failed to {error:#}"));
            ExitCode::FAILURE
        }
    }
}
