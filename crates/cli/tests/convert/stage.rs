//! Commands in a directory of their own.

use std::process::{Command, Output, Stdio};

use draught_testkit::{Scratch, images};
use serde_json::Value;

/// A directory, and an image to convert.
pub(crate) struct Stage {
    pub(crate) scratch: Scratch,
    pub(crate) from: String,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self {
            scratch: Scratch::new(),
            from: format!("oci:{}:latest", images::torture().display()),
        }
    }

    pub(crate) fn draught(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_draught"))
            .args(["--progress", "plain", "--root", "state"])
            .args(args)
            .current_dir(self.scratch.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    #[track_caller]
    pub(crate) fn done(&self, args: &[&str]) -> Output {
        let output = self.draught(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
        output
    }

    #[track_caller]
    pub(crate) fn json(&self, to: &str, caches: &[&str]) -> Value {
        let args = ["--format", "json", "convert", &self.from, to];
        let output = self.done(&[&args[..], caches].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    }
}
