//! Ending early without leaving anything behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Whether somebody asked us to stop. What is under way ends first; then everything that was started
/// is ended by its guard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on; a second signal ends this program at once.
    pub(crate) fn listen() -> Result<Self> {
        let asked = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: the first signal finds the flag unset and only sets it.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&asked.0))?;
            signal_hook::flag::register(signal, Arc::clone(&asked.0))?;
        }
        Ok(asked)
    }

    /// Fails if somebody asked us to stop.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("go on: interrupted");
        }
        Ok(())
    }
}
