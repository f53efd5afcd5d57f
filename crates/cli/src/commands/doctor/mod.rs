//! `draught doctor`: the whole set-up looked at.

mod check;
mod command;
mod config;
mod containerd;
mod daemon;
mod machine;
mod registries;
mod service;

pub(crate) use check::Check;
pub(crate) use command::{
    Args, CONTAINERD, CONTAINERD_CONFIG, NAME, SNAPSHOTTER, Subject, connections, run,
};
pub(crate) use config::{expand, imports, matches};
