//! Traces for tests: small ones by hand, and one that looks like a real start.

mod files;
mod parts;
mod start;

pub(crate) use parts::{area, empty, fault, fetch};
pub(crate) use start::realistic;
