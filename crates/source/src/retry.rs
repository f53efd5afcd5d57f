//! Trying again: for operations on whole objects. Ranged reads are tried again by who plans them.

use std::time::Duration;

use crate::error::{Class, SourceError};
use crate::settings::{RETRY_DELAY_MAX, Settings};

/// How long to wait before the next try; `None` when there is none.
pub(crate) struct Backoff {
    left: u32,
    delay: Duration,
}

impl Backoff {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            left: settings.attempts.saturating_sub(1),
            delay: settings.retry_delay,
        }
    }

    /// Waits after an error that may pass.
    ///
    /// # Errors
    /// The error itself when it won't pass or was the last.
    pub(crate) async fn wait(&mut self, error: SourceError) -> Result<(), SourceError> {
        let Class::Unavailable { retry_after } = error.class() else {
            return Err(error);
        };
        if self.left == 0 {
            return Err(error);
        }
        self.left -= 1;
        let delay = retry_after.unwrap_or_default().max(self.delay);
        self.delay = self.delay.saturating_mul(2);
        let delay = delay.min(RETRY_DELAY_MAX);
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            delay_ms = delay.as_millis(),
            "trying again"
        );
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

/// Runs an operation until it succeeds, fails for good, or failed often enough.
///
/// Not an `AsyncFnMut`: of what that gives, the compiler can't tell that it may move between threads.
pub(crate) async fn insist<T, F: Future<Output = Result<T, SourceError>>>(
    settings: &Settings,
    mut operation: impl FnMut() -> F,
) -> Result<T, SourceError> {
    let mut backoff = Backoff::new(settings);
    loop {
        match operation().await {
            Ok(value) => return Ok(value),
            Err(error) => backoff.wait(error).await?,
        }
    }
}
