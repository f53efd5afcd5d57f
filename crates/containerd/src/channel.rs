//! Connections to a Unix socket, and what says whose a request is.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tower_service::Service;

/// Names the namespace of a request.
pub const NAMESPACE_HEADER: &str = "containerd-namespace";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("failed to connect to {socket:?}")]
pub struct ConnectError {
    /// The socket.
    pub socket: PathBuf,
    /// Why.
    pub source: tonic::transport::Error,
}

/// Connects to a Unix socket.
///
/// # Errors
/// When nobody listens there, or it can't be reached.
pub async fn connect(socket: &Path) -> Result<Channel, ConnectError> {
    // A name is asked for, and not used.
    let endpoint = Endpoint::from_static("http://containerd.invalid");
    let connected = endpoint
        .connect_with_connector(Connector(socket.into()))
        .await;
    connected.map_err(|source| ConnectError {
        socket: socket.to_owned(),
        source,
    })
}

/// A request in a namespace of containerd.
///
/// A name that can't stand in a header gives a request in none, which containerd refuses by name.
pub fn in_namespace<T>(namespace: &str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Ok(value) = MetadataValue::try_from(namespace) {
        request.metadata_mut().insert(NAMESPACE_HEADER, value);
    }
    request
}

/// The namespace that a request is in.
#[must_use]
pub fn namespace_of(metadata: &MetadataMap) -> Option<&str> {
    metadata.get(NAMESPACE_HEADER)?.to_str().ok()
}

/// Connects to the same socket, again and again.
#[derive(Debug, Clone)]
struct Connector(Arc<Path>);

impl Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let socket = Arc::clone(&self.0);
        Box::pin(async move { UnixStream::connect(&*socket).await.map(TokioIo::new) })
    }
}
