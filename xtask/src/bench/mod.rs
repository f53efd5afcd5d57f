//! Benchmarks: programs that print numbers, never tests that can fail for being slow.

mod command;
mod convert;
mod draught;
mod estargz;
mod first_light;
mod image;
mod interrupt;
mod machine;
mod measure;
mod node;
mod pack;
mod read;
mod reader;
mod release;
mod results;
mod run;
mod store;
mod suite;
mod table;

pub(crate) use command::{Args, run_benchmark};
