//! `draught install`: what a node needs so that containerd uses draught.

mod changes;
mod command;
mod edit;
mod snippet;
mod unit;
mod version;

pub(crate) use command::{Args, run};
pub(crate) use snippet::Cri;
pub(crate) use version::{Version, ask as ask_version};
