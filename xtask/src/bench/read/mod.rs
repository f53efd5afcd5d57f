//! Reading: draught, and what others make of the same files.

mod contender;
mod lazily;
mod locally;
mod nydusd;
mod passes;
mod report;
mod stage;

pub(crate) use report::Readings;
