//! One program for all targets; the environment variable `TARGET` names the one to run.
#![no_main]

use std::sync::LazyLock;

use draught_fuzz::TARGETS;
use libfuzzer_sys::fuzz_target;

static CHECK: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("TARGET").unwrap_or_default();
    let target = TARGETS.iter().find(|target| target.name == name);
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    target.unwrap_or_else(|| panic!("set TARGET to one of {}", names.join(", "))).check
});

fuzz_target!(|data: &[u8]| {
    (*CHECK)(data);
});
