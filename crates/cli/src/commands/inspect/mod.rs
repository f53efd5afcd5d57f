//! `draught inspect`: what an image is made of.

mod blobs;
mod command;
mod facts;
mod shared;
mod text;

pub(crate) use command::{Args, run};
pub(crate) use facts::files_of;
