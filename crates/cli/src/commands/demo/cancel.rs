//! Telling threads that nobody waits for them any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

use crate::outcome::Interrupted;

/// Held by who wants the work done: when it is dropped, the work ends soon.
#[derive(Debug, Default)]
pub(crate) struct Wanted(Arc<AtomicBool>);

/// Held by who does the work.
#[derive(Debug, Clone)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Wanted {
    /// For a thread to look at.
    pub(crate) fn cancel(&self) -> Cancel {
        Cancel(Arc::clone(&self.0))
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Cancel {
    /// An error once the work is not wanted any more.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        Ok(())
    }
}
