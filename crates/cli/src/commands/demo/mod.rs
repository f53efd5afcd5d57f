//! `draught demo`: the whole way on one machine, with nothing else installed and no network.

mod cancel;
mod command;
mod elf;
mod full_pull;
mod image;
pub(crate) mod inside;
mod layer;
mod report;
mod runtime;
mod selection;
mod show;
mod stage;
mod tree_on_disk;

pub(crate) use command::{Args, run};
