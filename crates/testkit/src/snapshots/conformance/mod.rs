//! What containerd takes for granted of a snapshotter, as named checks against a socket.
//!
//! Origin: containerd's documentation of snapshotters, its own suite for them (`core/snapshots/testsuite`)
//! and how its overlays answer; facts only. The suite itself is checked against containerd's overlays and
//! against snapshotters that are wrong in one way.
//!
//! ```no_run
//! use draught_testkit::snapshots::{Target, conformance};
//! let target = Target::new("/run/draught/snapshotter.sock".as_ref(), "draught", "default");
//! conformance::run(&target, &conformance::Options::default()).assert_all_passed();
//! ```

mod deep;
mod files;
mod filters;
mod labels;
mod life;
mod parallel;
mod refusals;
mod stage;
mod suite;
#[cfg(test)]
mod tests;
mod usage;

pub use suite::{CHECKS, Check, Options, Outcome, Report, run};
