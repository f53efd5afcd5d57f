//! A snapshotter that has no snapshots: it answers every call with "not found".

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::path::Path;
use std::task::{Context, Poll};

use draught_containerd::tonic::body::Body;
use draught_containerd::tonic::codegen::{Service, http};
use draught_containerd::tonic::server::NamedService;
use draught_containerd::tonic::{Status, transport::Server};
use futures_util::stream;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;

/// It answers until it is dropped.
pub(crate) struct Snapshotter(Option<Runtime>);

#[derive(Debug, Clone)]
struct NotFound;

impl NamedService for NotFound {
    const NAME: &'static str = "containerd.services.snapshots.v1.Snapshots";
}

impl Service<http::Request<Body>> for NotFound {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        ready(Ok(Status::not_found("nothing is here").into_http()))
    }
}

impl Snapshotter {
    pub(crate) fn start(socket: &Path) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let runtime = Runtime::new().unwrap();
        let entered = runtime.enter();
        let listener = UnixListener::bind(socket).unwrap();
        drop(entered);
        fs_err::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).unwrap();
        let connections = stream::unfold(listener, async |listener| {
            let accepted = listener.accept().await;
            Some((accepted.map(|(connection, _)| connection), listener))
        });
        let server = Server::builder().add_service(NotFound);
        runtime.spawn(server.serve_with_incoming(Box::pin(connections)));
        Self(Some(runtime))
    }
}

impl Drop for Snapshotter {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
