//! Programs of the workspace as their users get them: release builds.

use std::path::PathBuf;

use anyhow::Result;

use crate::run::{cargo, run, say, workspace};

/// Builds a package; gives the program of the same name.
pub(crate) fn build(package: &str) -> Result<PathBuf> {
    say(&format!("building {package} for release"));
    let args = ["build", "--release", "--package", package, "--quiet"];
    run(cargo(&args).stdout(std::io::stderr()))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| workspace().join("target"));
    Ok(target.join("release").join(package))
}
