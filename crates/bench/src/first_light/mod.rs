//! `first-light`: converting images, and reading them in every state.

mod command;
mod convert;
mod images;
mod program;
mod read;

pub(crate) use command::{Args, run};
