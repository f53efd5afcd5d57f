//! `cargo xtask test`.

mod checks;
mod machine;
mod tools;

pub(crate) use checks::{Args, run_all};
