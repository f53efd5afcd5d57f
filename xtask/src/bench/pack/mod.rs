//! The converter, measured beside its peers against what it may cost.

mod changed;
mod command;
mod estargz;
mod generate;
mod linear;
mod merge;
mod nydus;
mod plot;
mod said;
mod slices;

pub(crate) use command::{Args, run};
pub(crate) use generate::Args as Generated;
