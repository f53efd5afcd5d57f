//! What is said of registries, in files that the daemon reads when an image is pulled.

use std::path::PathBuf;

use draught_source::{Hosts, Looked};

use super::check::Check;

const WHAT: &str = "registries' hosts";

/// Every directory of hosts.
pub(crate) fn checks(roots: &[PathBuf]) -> Vec<Check> {
    let all = Hosts::of(roots.to_vec()).look();
    let count = all.len();
    let mut checks: Vec<Check> = all.into_iter().filter_map(check).collect();
    if checks.is_empty() {
        let found = match count {
            0 => "none are named: every registry is asked itself".to_owned(),
            count => format!("{count} directories can be read"),
        };
        checks.push(Check::right(WHAT, found));
    }
    checks
}

/// What is wrong with one.
fn check(looked: Looked) -> Option<Check> {
    let dir = looked.dir.display();
    if let Some(error) = looked.error {
        let error = anyhow::Error::from(error);
        return Some(Check::wrong(
            WHAT,
            format!("{dir}: {error:#}"),
            "repair it: nothing of this registry can be read until then",
        ));
    }
    if let Some(missing) = looked.missing.first() {
        return Some(Check::wrong(
            WHAT,
            format!("{dir}: {} is not there", missing.display()),
            "put it there, or take its name out of hosts.toml",
        ));
    }
    if !looked.unknown.is_empty() {
        return Some(Check::hint(
            WHAT,
            format!(
                "{dir}: {} not known and not used",
                looked.unknown.join(", ")
            ),
            "see docs/credentials.md for what is",
        ));
    }
    None
}
