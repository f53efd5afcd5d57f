//! The daemon's end of the control socket.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::control::{REQUEST_BYTES_MAX, Reply, Request};
use crate::worker::Worker;

/// Commands that are served at once; more wait in the socket's backlog.
const CONNECTIONS_MAX: usize = 64;

/// Serves commands for ever.
pub(crate) async fn serve(worker: Arc<Worker>, listener: OwnedFd) -> std::io::Result<()> {
    let listener = StdListener::from(listener);
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return Ok(());
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let worker = Arc::clone(&worker);
                tokio::spawn(async move {
                    if let Err(error) = converse(&worker, stream).await {
                        tracing::debug!(%error, "a command hung up");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: what is being served frees some.
                tracing::warn!(%error, "failed to accept a command");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(worker: &Arc<Worker>, stream: UnixStream) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader.take(REQUEST_BYTES_MAX));
    reader.read_until(b'\n', &mut line).await?;
    let (reply, after) = match serde_json::from_slice::<Request>(&line) {
        Ok(request) => Box::pin(worker.handle(request)).await,
        Err(error) => {
            let chain = vec![
                "the daemon does not understand this request (is it of another version?)".into(),
                error.to_string(),
            ];
            (Reply::Failed(chain), After::Nothing)
        }
    };
    let mut answer = serde_json::to_vec(&reply).map_err(std::io::Error::other)?;
    answer.push(b'\n');
    let written = writer.write_all(&answer).await;
    let shut = writer.shutdown().await;
    match after {
        After::Nothing => {}
        After::Exit => worker.exit(),
    }
    written.and(shut)
}

/// What is to happen once the reply is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Nothing.
    Nothing,
    /// This process ends.
    Exit,
}
