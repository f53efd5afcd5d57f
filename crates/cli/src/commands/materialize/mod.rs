//! `draught materialize`: an image of containerd's made whole.

mod assembled;
mod blobs;
mod command;
mod containerd;
mod labels;
mod report;
mod tree;
mod write;

pub(crate) use command::{Args, run};
