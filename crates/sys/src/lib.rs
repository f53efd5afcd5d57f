//! This crate is the system calls that draught needs and all of its unsafe code.
//!
//! What rustix offers is used as it is; here is what it lacks (fanotify, memory that processes share)
//! and what several crates need in the same way (descriptors over sockets, raising limits).
#![allow(
    unsafe_code,
    reason = "the one crate that may: system calls that have no safe wrapper"
)]

pub mod fanotify;
pub mod inherit;
pub mod journal;
pub mod lease;
pub mod limits;
pub mod notify;
pub mod resident;
pub mod scm;
