//! A runtime that callers need not know of: they wait, on whatever thread they are.

use std::future::Future;
use std::sync::mpsc;

use tokio::runtime::Runtime;

/// Threads: what is awaited here are answers of other processes.
const THREADS: usize = 2;

/// A runtime of its own. Waiting for it works on any thread, on one of another runtime too.
#[derive(Debug)]
pub(crate) struct Background {
    runtime: Option<Runtime>,
}

impl Background {
    pub(crate) fn start(name: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name(name)
            .enable_all()
            .build()
            .unwrap();
        Self {
            runtime: Some(runtime),
        }
    }

    /// Runs `future` there and waits for it.
    pub(crate) fn wait<F>(&self, future: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (send, receive) = mpsc::sync_channel(1);
        self.spawn(async move {
            // Nobody waits any more if the caller panicked.
            drop(send.send(future.await));
        });
        receive.recv().unwrap()
    }

    /// Runs `future` there for as long as this lives.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.as_ref().unwrap().spawn(future));
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The caller may be on a runtime of its own, which must not wait.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_can_wait_on_a_thread_of_another_runtime() {
        let background = Background::start("test");
        let sum = background.wait(async {
            tokio::task::yield_now().await;
            1 + 1
        });
        assert_eq!(sum, 2);
    }
}
