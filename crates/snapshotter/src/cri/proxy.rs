//! The server: connections, calls, and the one call that is read.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use draught_source::Keychain;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::passing::{Body, Line, PassError};
use super::pull::{self, HandedOver};

/// Connections at once: a kubelet makes one or two, people with tools a few.
const CONNECTIONS_MAX: usize = 64;

/// Calls at once on one connection. A kubelet starts some hundred pods at most, and each asks a few things.
const CALLS_MAX: u32 = 1024;

/// Bytes of a call's headers: grpc's own limit is 16 KiB.
pub(super) const HEADERS_BYTES_MAX: u32 = 64 << 10;

/// Bytes of a pull that is read: a name, a credential, and the pod's description.
const PULL_BYTES_MAX: usize = 4 << 20;

/// How long accepting rests after it failed: out of descriptors, most likely, and some are freed meanwhile.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The calls that are read, in both versions that containerd 1.6 has; the messages are the same.
const PULLS: [&str; 2] = [
    "/runtime.v1.ImageService/PullImage",
    "/runtime.v1alpha2.ImageService/PullImage",
];

/// `UNAVAILABLE`, `RESOURCE_EXHAUSTED` and `CANCELLED` of gRPC.
const UNAVAILABLE: &str = "14";
const RESOURCE_EXHAUSTED: &str = "8";
const CANCELLED: &str = "1";

/// Passes every call on `listener` on to the socket `upstream`, for ever: unary and streaming ones, known or not, bytes,
/// metadata, deadlines and errors as they come. What a pull brings for an image is handed over to `keychain` before
/// the pull is passed on, and taken back if the pull fails.
///
/// # Errors
/// None that ends it: a connection that can't be accepted is logged, and the next is waited for.
pub async fn serve(
    listener: UnixListener,
    upstream: PathBuf,
    keychain: Arc<Keychain>,
) -> io::Result<()> {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let upstream: Arc<Path> = upstream.into();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return Ok(());
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (upstream, keychain) = (Arc::clone(&upstream), Arc::clone(&keychain));
                drop(tokio::spawn(async move {
                    converse(stream, upstream, keychain).await;
                    drop(permit);
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection to the image service");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, upstream: Arc<Path>, keychain: Arc<Keychain>) {
    let line = Arc::new(Line::default());
    let service = service_fn(move |request| {
        let (line, upstream) = (Arc::clone(&line), Arc::clone(&upstream));
        let keychain = Arc::clone(&keychain);
        async move { Ok::<_, Infallible>(answer(&line, &upstream, &keychain, request).await) }
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(CALLS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the image service broke");
    }
}

/// Answers one call with what containerd answers.
async fn answer(
    line: &Line,
    upstream: &Path,
    keychain: &Arc<Keychain>,
    request: Request<Incoming>,
) -> Response<Body> {
    let (mut head, body) = request.into_parts();
    let call = head.uri.path().to_owned();
    head.version = Version::HTTP_2;
    let (body, handed_over) = if PULLS.contains(&call.as_str()) {
        match read(body).await {
            Ok(bytes) => {
                let handed_over = pull::take(&bytes, keychain);
                (body_of(bytes), handed_over)
            }
            Err(response) => return *response,
        }
    } else {
        (body.boxed(), None)
    };
    let handed_over = handed_over.map(|handed_over| Pending {
        handed_over: Some(handed_over),
        keychain: Arc::clone(keychain),
    });
    match line.pass(upstream, Request::from_parts(head, body)).await {
        Ok(response) => {
            tracing::debug!(call, "a call of the image service was passed on");
            let (head, body) = response.into_parts();
            let body = match handed_over {
                Some(pending) => watched(&head.headers, body, pending),
                None => body.boxed(),
            };
            Response::from_parts(head, body)
        }
        Err(error) => {
            let why = &error as &dyn std::error::Error;
            tracing::warn!(call, error = why, "containerd does not take a call");
            let message = match error {
                PassError::Connect(_) => "draught: containerd can not be connected to",
                PassError::Handshake(_) | PassError::Send(_) => "draught: containerd hung up",
            };
            status(UNAVAILABLE, message)
        }
    }
}

/// What was handed over for a pull that has not ended. If it never does, or fails, it is taken back.
struct Pending {
    handed_over: Option<HandedOver>,
    keychain: Arc<Keychain>,
}

impl Pending {
    /// The pull succeeded.
    fn keep(&mut self) {
        self.handed_over = None;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(handed_over) = self.handed_over.take() {
            handed_over.take_back(&self.keychain);
        }
    }
}

fn is_ok(headers: &HeaderMap) -> bool {
    headers
        .get("grpc-status")
        .is_some_and(|status| status == "0")
}

/// The answer to a pull, and a look at its end.
fn watched(headers: &HeaderMap, body: Incoming, mut pending: Pending) -> Body {
    if is_ok(headers) {
        pending.keep();
    }
    body.map_frame(move |frame| {
        if frame.trailers_ref().is_some_and(is_ok) {
            pending.keep();
        }
        frame
    })
    .boxed()
}

/// Reads a whole request, or gives the answer that it gets instead.
async fn read(body: Incoming) -> Result<Bytes, Box<Response<Body>>> {
    match Limited::new(body, PULL_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = "draught: a pull of this length is not passed on";
            Err(Box::new(status(RESOURCE_EXHAUSTED, message)))
        }
        Err(_) => Err(Box::new(status(CANCELLED, "draught: the pull broke off"))),
    }
}

fn body_of(bytes: Bytes) -> Body {
    BoxBody::new(Full::new(bytes).map_err(|never| match never {}))
}

/// An answer of our own, without a message.
fn status(code: &'static str, message: &'static str) -> Response<Body> {
    let mut response = Response::new(BoxBody::new(Empty::new().map_err(|never| match never {})));
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("grpc-status", code),
        ("grpc-message", message),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
