//! A snapshotter of the plainest kind: overlays over directories, everything else in memory. It is what
//! the checks are checked with: right, or wrong in one way ([`Fault`]).

mod filter;
mod serve;
mod state;

pub(crate) use serve::{Model, Serving};
pub(crate) use state::Fault;
