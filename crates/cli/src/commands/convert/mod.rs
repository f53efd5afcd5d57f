//! `draught convert`: an image in a lazily readable format.

mod command;
mod dictionaries;
mod options;
mod report;
mod tracker;

pub(crate) use command::{Args, run};
pub(crate) use tracker::Tracker;
