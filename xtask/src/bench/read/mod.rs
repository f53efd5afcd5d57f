//! Reading: draught, and what others make of the same files.

mod contender;
mod lazily;
mod locally;
mod nydusd;
mod passes;
mod report;
mod stage;
mod unserved;

pub(crate) use report::Readings;
pub(crate) use unserved::NAME as UNSERVED;
