//! What whoever runs draught under containerd does with it.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests are tests: what fails in them fails the test"
)]

mod doctor;
mod install;
mod materialize;
mod snapshotter;
mod stage;
