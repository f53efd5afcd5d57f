//! The snapshotter with real clients: containerd, runc, ctr and ctr-remote.
#![expect(clippy::unwrap_used, reason = "a failed assumption fails the test")]

mod containers;
mod mixed;
mod pods;
mod protocol;
mod stage;
mod survives;
mod whole;
