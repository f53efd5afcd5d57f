//! This crate is the planner: which ranges of which blobs to fetch, in what order, for the faults at hand; it does no I/O and reads no clock.
#![forbid(unsafe_code)]
