//! Benchmarks in parts, each with bars: what a measure may be at most.

pub(crate) mod bar;
pub(crate) mod bench;
pub(crate) mod command;
pub(crate) mod counted;
pub(crate) mod generated;
pub(crate) mod report;
pub(crate) mod sheet;
pub(crate) mod unit;
