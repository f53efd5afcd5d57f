//! What the global options mean, resolved once.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::args::{Format, Global, Progress};

/// The global options, resolved: nothing here is "auto".
#[derive(Debug)]
pub(crate) struct Settings {
    /// Where all state lives; absolute.
    pub(crate) root: PathBuf,
    /// Registries that may be spoken to in plain HTTP, besides loopback.
    pub(crate) plain_http: Vec<String>,
    /// For whom results are written.
    pub(crate) format: Format,
    /// How progress is shown; never [`Progress::Auto`].
    pub(crate) progress: Progress,
    /// What is logged, as it was typed; it has been checked.
    pub(crate) log: String,
    /// How log lines look.
    pub(crate) log_format: Format,
}

impl Settings {
    /// Resolves what was typed.
    pub(crate) fn resolve(global: Global) -> Result<Self> {
        let root = std::path::absolute(&global.root)
            .with_context(|| format!("understand --root {}", global.root.display()))?;
        let progress = match global.progress {
            Progress::Auto if global.format == Format::Json => Progress::Json,
            Progress::Auto if std::io::stderr().is_terminal() => Progress::Bar,
            Progress::Auto => Progress::Plain,
            chosen => chosen,
        };
        Ok(Self {
            root,
            plain_http: global.plain_http,
            format: global.format,
            progress,
            log: global.log,
            log_format: global.log_format,
        })
    }
}
