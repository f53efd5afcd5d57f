//! This crate is the system calls that draught needs and all of its unsafe code.
