//! Running other programs and saying so.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Says on standard error what is being done.
#[expect(
    clippy::print_stderr,
    reason = "progress is words, and words go to standard error"
)]
pub(crate) fn say(words: &str) {
    eprintln!("xtask: {words}");
}

/// A command that reads nothing.
pub(crate) fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command
}

/// The cargo that runs this chore.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = command(&program, args);
    command.current_dir(workspace());
    // What `cargo run` tells us about ourselves is not for the cargo that we start: some build
    // scripts look at it, and would run again each time that cargo is started another way.
    for (name, _) in std::env::vars_os() {
        let about_us = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_CRATE_",
            "CARGO_BIN_",
        ];
        if name
            .to_str()
            .is_some_and(|name| about_us.iter().any(|it| name.starts_with(it)))
        {
            command.env_remove(name);
        }
    }
    command
}

/// The directory that holds the workspace's `Cargo.toml`.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Runs a command, with its output shown, and fails if it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("start {}", program(command)))?;
    if !status.success() {
        bail!("run {}: it ended with {status}", shown(command));
    }
    Ok(())
}

/// Whether a command can be started and succeeds; its output is not shown.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut line = program(command);
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

fn program(command: &Command) -> String {
    let path = Path::new(command.get_program());
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}
