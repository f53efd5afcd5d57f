//! Limits of this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::journal::NUMBERS;

/// Raises the soft limit of open files to what is allowed, and says what it is now. Not beyond the numbers
/// that the journal has room for: an event that it can't note would be lost with its worker.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: Some(limit.maximum.unwrap_or(u64::MAX).min(NUMBERS as u64)),
        maximum: limit.maximum,
    };
    // That more is not allowed is no error: the limit stays what it was.
    let _unchanged = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
