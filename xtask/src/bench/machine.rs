//! What the numbers were measured on.

use std::path::Path;

use draught_testkit::mounted;
use serde_json::{Value, json};

/// The machine, for people.
#[derive(Debug)]
pub(crate) struct Machine {
    kernel: String,
    processor: String,
    processors: usize,
    memory_kib: u64,
    filesystem: String,
    load: String,
}

impl Machine {
    /// This machine, with the filesystem that `scratch` is on.
    pub(crate) fn see(scratch: &Path) -> Self {
        let read = |path: &str| fs_err::read_to_string(path).unwrap_or_default();
        let field = |text: &str, key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.trim().strip_prefix(':'))
                .map(|value| value.trim().to_owned())
                .unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: field(&read("/proc/cpuinfo"), "model name"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_kib: memory
                .split(' ')
                .next()
                .and_then(|kib| kib.parse().ok())
                .unwrap_or(0),
            filesystem: filesystem(scratch),
            load: read("/proc/loadavg")
                .split(' ')
                .next()
                .map(str::to_owned)
                .unwrap_or_default(),
        }
    }

    /// The type of filesystem that is compared with: the one below everything.
    pub(crate) fn filesystem(&self) -> &str {
        &self.filesystem
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        format!(
            "{} × {}, {} MB of memory, Linux {}, {}; load {} at the start",
            self.processors,
            self.processor,
            self.memory_kib / 1000,
            self.kernel,
            self.filesystem,
            self.load
        )
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "kernel": self.kernel,
            "processor": self.processor,
            "processors": self.processors,
            "memory_kib": self.memory_kib,
            "filesystem": self.filesystem,
            "load_at_start": self.load,
        })
    }
}

/// The type of the filesystem that a path is on.
fn filesystem(path: &Path) -> String {
    mounted::all()
        .into_iter()
        .filter(|mount| path.starts_with(&mount.dir))
        // The later of two on the same directory covers the other.
        .max_by_key(|mount| mount.dir.components().count())
        .map(|mount| mount.fs_type)
        .unwrap_or_default()
}
