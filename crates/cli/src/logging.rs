//! Log lines, to standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::args::Format;
use crate::settings::Settings;

/// Starts logging; the first call counts.
pub(crate) fn start(settings: &Settings) {
    let filter = EnvFilter::new(&settings.log);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let started = match settings.log_format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().try_init(),
    };
    // Only a second start fails, and then lines go where the first one sends them.
    started.unwrap_or_default();
}
