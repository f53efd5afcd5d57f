//! This crate is the one program of the project, `draught`.
#![forbid(unsafe_code)]

fn main() {}
