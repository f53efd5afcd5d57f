//! What is counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Layers that clients asked for since this process started.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    served: AtomicU64,
    pulled: AtomicU64,
}

impl Counts {
    /// One more that is served.
    pub(crate) fn served(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    /// One more that its client pulls.
    pub(crate) fn pulled(&self) {
        self.pulled.fetch_add(1, Ordering::Relaxed);
    }

    /// Both, as they are now.
    pub(crate) fn now(&self) -> (u64, u64) {
        let [served, pulled] =
            [&self.served, &self.pulled].map(|count| count.load(Ordering::Relaxed));
        (served, pulled)
    }
}
