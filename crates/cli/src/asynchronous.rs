//! The asynchronous part of a command: a runtime, and an end when the person says so.

use std::future::Future;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::outcome::Interrupted;

/// Runs a command's future to its end, or until SIGINT or SIGTERM, which drop it: what it holds
/// cleans up after itself.
pub(crate) fn run<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    block_on(async {
        let mut stop = Stop::new()?;
        tokio::select! {
            result = work => result,
            () = stop.wait() => Err(Interrupted.into()),
        }
    })
}

/// Runs a future to its end, whatever signals come.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the asynchronous runtime")?;
    runtime.block_on(work)
}

/// The signals that ask a program to end.
#[derive(Debug)]
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// From now on these signals no longer kill the process.
    pub(crate) fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for one of them.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
