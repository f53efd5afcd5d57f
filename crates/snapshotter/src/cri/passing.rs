//! Passing one call on: a connection to the other side, made again when it broke.

use std::io;
use std::path::Path;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::proxy::HEADERS_BYTES_MAX;

/// The body of a request that is passed on.
pub(super) type Body = BoxBody<Bytes, hyper::Error>;

/// Why a call could not be passed on.
#[derive(Debug, thiserror::Error)]
pub(super) enum PassError {
    #[error("failed to connect")]
    Connect(#[source] io::Error),
    #[error("failed to speak HTTP/2")]
    Handshake(#[source] hyper::Error),
    #[error("failed to pass the call on")]
    Send(#[source] hyper::Error),
}

/// One connection to containerd, for one connection to us.
#[derive(Debug, Default)]
pub(super) struct Line(Mutex<Option<SendRequest<Body>>>);

impl Line {
    /// Passes a request on and gives the head of its answer.
    pub(super) async fn pass(
        &self,
        upstream: &Path,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, PassError> {
        let mut sender = self.sender(upstream).await?;
        sender.send_request(request).await.map_err(PassError::Send)
    }

    /// What sends: that of before, or, if the other side has ended, a new one.
    async fn sender(&self, upstream: &Path) -> Result<SendRequest<Body>, PassError> {
        let mut slot = self.0.lock().await;
        if let Some(sender) = slot.as_mut()
            && sender.ready().await.is_ok()
        {
            return Ok(sender.clone());
        }
        *slot = None;
        let stream = UnixStream::connect(upstream).await;
        let io = TokioIo::new(stream.map_err(PassError::Connect)?);
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(HEADERS_BYTES_MAX)
            .handshake(io)
            .await
            .map_err(PassError::Handshake)?;
        drop(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to containerd broke");
            }
        }));
        *slot = Some(sender.clone());
        Ok(sender)
    }
}
