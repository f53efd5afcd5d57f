//! `draught map`.

mod command;

pub(crate) use command::{Args, run};
