//! The server: one task that accepts, one answer per request.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::answer::{API_VERSION, Answer};
use super::connection::Limited;
use super::error::{ApiError, Code};
use super::route::{Route, route};
use super::{blob, listing, manifest, text, upload};
use crate::Registry;

/// What every request needs.
#[derive(Debug, Clone)]
pub(super) struct App {
    pub(super) registry: Registry,
    /// Cancelled when even requests under way must end.
    pub(super) closing: CancellationToken,
}

/// A request without its body.
pub(super) struct Call {
    pub(super) parts: Parts,
}

impl Call {
    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        text::query(self.parts.uri.query()?).remove(name)
    }

    /// Whether the client has it already, by the entity tag that is the digest.
    pub(super) fn has_match(&self, name: HeaderName, etag: &str) -> bool {
        self.header(name).is_some_and(|header| {
            header.split(',').map(str::trim).any(|tag| {
                tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"') == etag
            })
        })
    }
}

/// A registry being served.
///
/// Dropping it shuts down without waiting.
#[derive(Debug)]
pub struct Handle {
    addr: SocketAddr,
    stop: CancellationToken,
    closing: CancellationToken,
    grace: Duration,
    server: Option<JoinHandle<io::Result<()>>>,
}

impl Handle {
    /// The address that it listens at.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops listening, gives requests under way [`Options::shutdown_grace`](crate::Options::shutdown_grace)
    /// to end, and cuts off the rest.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let Some(mut server) = self.server.take() else {
            return;
        };
        if tokio::time::timeout(self.grace, &mut server).await.is_err() {
            self.closing.cancel();
            server.abort();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.cancel();
        self.closing.cancel();
    }
}

/// Serves `registry` to whoever connects to `listener`, in the background.
///
/// # Errors
///
/// If the listener has no address.
pub fn serve(registry: Registry, listener: TcpListener) -> io::Result<Handle> {
    let addr = listener.local_addr()?;
    let stop = CancellationToken::new();
    let closing = CancellationToken::new();
    let options = &registry.options;
    let grace = options.shutdown_grace;
    let listener = Limited::new(listener, options.connections_max, options.connection_idle);
    let app = App {
        registry,
        closing: closing.clone(),
    };
    let router = Router::new().fallback(answer).with_state(app);
    let server =
        axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let server = tokio::spawn(server.into_future());
    Ok(Handle {
        addr,
        stop,
        closing,
        grace,
        server: Some(server),
    })
}

async fn answer(State(app): State<App>, request: Request<Body>) -> Response<Body> {
    let begun = Instant::now();
    let (parts, body) = request.into_parts();
    let (method, uri) = (parts.method.clone(), parts.uri.clone());
    let result = Box::pin(dispatch(&app, Call { parts }, body)).await;
    let mut response = result.unwrap_or_else(|error| {
        let unread = error.body_unread;
        let mut response = error.into_response();
        if unread {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    });
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert(API_VERSION, version);
    debug!(
        %method,
        %uri,
        status = response.status().as_u16(),
        elapsed_us = begun.elapsed().as_micros(),
        "request"
    );
    response
}

async fn dispatch(app: &App, call: Call, body: Body) -> Result<Response<Body>, ApiError> {
    let method = call.parts.method.clone();
    let reads = matches!(method, Method::GET | Method::HEAD);
    match route(call.parts.uri.path())? {
        Route::Base if reads => Ok(Answer::new(StatusCode::OK).json(&serde_json::json!({}))),
        Route::Catalog if reads => listing::catalog(app, &call).await,
        Route::Tags(name) if reads => listing::tags(app, &call, name).await,
        Route::Referrers(name, subject) if reads => {
            listing::referrers(app, &call, name, subject).await
        }
        Route::Blob(name, digest) => match method {
            Method::GET | Method::HEAD => blob::read(app, &call, name, digest).await,
            Method::DELETE => blob::delete(app, name, digest).await,
            _ => Err(not_allowed(&method, "DELETE, GET, HEAD")),
        },
        Route::Manifest(name, reference) => match method {
            Method::GET | Method::HEAD => manifest::read(app, &call, name, reference).await,
            Method::PUT => manifest::write(app, &call, body, name, reference).await,
            Method::DELETE => manifest::delete(app, name, reference).await,
            _ => Err(not_allowed(&method, "DELETE, GET, HEAD, PUT")),
        },
        Route::Uploads(name) => match method {
            Method::POST => upload::start(app, &call, body, name).await,
            _ => Err(not_allowed(&method, "POST")),
        },
        Route::Upload(name, id) => match method {
            Method::GET | Method::HEAD => upload::status(app, &name, &id).await,
            Method::PATCH => upload::append(app, &call, body, &name, &id).await,
            Method::PUT => upload::finish(app, &call, body, name, &id).await,
            Method::DELETE => upload::cancel(app, &name, &id),
            _ => Err(not_allowed(&method, "DELETE, GET, HEAD, PATCH, PUT")),
        },
        _ => Err(not_allowed(&method, "GET, HEAD")),
    }
}

fn not_allowed(method: &Method, allowed: &str) -> ApiError {
    let words = format!("{method} is not supported here");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, words)
        .with_header(header::ALLOW, allowed)
}
