//! `draught check`: every byte of an image, verified.

mod archive;
mod blob;
mod command;
mod content;
mod fault;
mod image;

pub(crate) use command::{Args, run};
