//! The `draught` program.
fn main() {}
