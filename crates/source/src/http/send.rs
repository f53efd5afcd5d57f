//! Sending a request: places in the queue, time-outs, redirects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode, Url};
use tokio::sync::Semaphore;

use super::answer::Answer;
use super::body::{Body, Progress};
use super::connect::Connections;
use crate::error::SourceError;
use crate::hosts::Route;
use crate::settings::{
    REDIRECTS_MAX, REQUESTS_PER_HOST, STREAMS_PER_HOST, Settings, WRITE_TIMEOUT,
};

/// Hosts for which places are counted; beyond, idle ones are forgotten.
const HOSTS_MAX: usize = 256;

/// Whether a connection broke before an answer came.
fn is_broken(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_connect() && !error.is_timeout()
}

/// Which of a host's two queues a request is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Short answers.
    Request,
    /// Whole blobs.
    Stream,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    pub(crate) lane: Lane,
    /// The host that the URL is one of, if anything is to be known about it.
    pub(crate) route: Option<Arc<Route>>,
}

impl Request {
    /// A request without body or headers.
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Body::Empty,
            lane: Lane::Request,
            route: None,
        }
    }

    /// The same with a header.
    pub(crate) fn with_header(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The same with a body.
    pub(crate) fn with_body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// The same in another queue.
    pub(crate) fn in_lane(mut self, lane: Lane) -> Self {
        self.lane = lane;
        self
    }

    /// The same to a host that is known.
    pub(crate) fn to(mut self, route: &Arc<Route>) -> Self {
        self.route = Some(Arc::clone(route));
        self
    }

    /// Whether it changes nothing over there.
    fn reads(&self) -> bool {
        [Method::GET, Method::HEAD].contains(&self.method)
    }

    /// Method and path for people: the query may hold a signature.
    fn label(&self, url: &Url) -> String {
        format!("{} {}", self.method, url.path())
    }
}

/// An answer, and where it came from in the end.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) answer: Answer,
    /// The last URL, when there were redirects to another host.
    pub(crate) moved_to: Option<Url>,
}

/// `host` or `host:port` of a URL, as references write it.
pub(crate) fn url_host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Everything that requests to all hosts share.
#[derive(Debug)]
pub(crate) struct Authority {
    pub(crate) settings: Settings,
    connections: Connections,
    places: Mutex<BTreeMap<(String, Lane), Arc<Semaphore>>>,
}

impl Authority {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            connections: Connections::new(settings.connect_timeout, settings.tls_ca.clone()),
            settings,
            places: Mutex::new(BTreeMap::new()),
        }
    }

    /// Sends a request and follows redirects. `authorization` goes to the URL's own host and nowhere else.
    pub(crate) async fn send(
        &self,
        request: &Request,
        authorization: Option<&HeaderValue>,
    ) -> Result<Sent, SourceError> {
        let mut url = request.url.clone();
        let mut authorization = authorization;
        let mut moved_to = None;
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.send_once(request, &url, authorization).await?;
            let Some(next) = self.redirect(request, &url, &answer)? else {
                return Ok(Sent { answer, moved_to });
            };
            answer.discard().await;
            if next.origin() != url.origin() {
                // Once dropped it stays so, even if the chain comes back.
                authorization = None;
                moved_to = Some(next.clone());
            } else if moved_to.is_some() {
                moved_to = Some(next.clone());
            }
            url = next;
        }
        Err(SourceError::Redirect {
            host: url_host(&request.url),
            target: url_host(&url),
            reason: "too many redirects",
        })
    }

    /// Sends a request that is signed for its URL and goes nowhere else.
    pub(crate) async fn send_straight(&self, request: &Request) -> Result<Answer, SourceError> {
        self.send_once(request, &request.url, None).await
    }

    /// Where the answer points, if it is a redirect that this method follows.
    fn redirect(
        &self,
        request: &Request,
        url: &Url,
        answer: &Answer,
    ) -> Result<Option<Url>, SourceError> {
        let follows = match answer.status() {
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => {
                request.reads()
            }
            _ => false,
        };
        match answer.header(LOCATION.as_str()) {
            Some(location) if follows => self.target(url, location).map(Some),
            _ => Ok(None),
        }
    }

    /// The absolute URL behind a `Location`, checked: never from TLS to plain, never plain to a host that
    /// wasn't allowed to be.
    pub(crate) fn target(&self, from: &Url, location: &str) -> Result<Url, SourceError> {
        let refuse = |target: String, reason| SourceError::Redirect {
            host: url_host(from),
            target,
            reason,
        };
        let mut target = from
            .join(location)
            .map_err(|_| refuse(String::new(), "not a URL"))?;
        let shown = |url: &Url| format!("{}://{}", url.scheme(), url_host(url));
        if !["http", "https"].contains(&target.scheme()) || target.host_str().is_none() {
            let scheme = target.scheme().to_owned();
            return Err(refuse(scheme, "neither http nor https"));
        }
        let same_host = target.host_str() == from.host_str();
        if from.scheme() == "https" && target.scheme() == "http" {
            // A registry behind a TLS proxy that does not know about it names itself with http.
            let explicit_port = target.port().is_some() && target.port() != from.port();
            if !same_host || explicit_port || target.set_scheme("https").is_err() {
                return Err(refuse(shown(&target), "it would leave TLS"));
            }
        }
        // Where plain HTTP is spoken already, nothing is lost by speaking on.
        let is_new = target.origin() != from.origin();
        if target.scheme() == "http" && is_new && !self.settings.is_plain_http(&url_host(&target)) {
            return Err(refuse(
                shown(&target),
                "plain HTTP is not allowed for that host",
            ));
        }
        // A server does not get to choose what we log in with.
        if target.set_username("").is_err() || target.set_password(None).is_err() {
            return Err(refuse(shown(&target), "not a URL"));
        }
        Ok(target)
    }

    async fn send_once(
        &self,
        request: &Request,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, SourceError> {
        let host = url_host(url);
        let places = self.places(&host, request.lane);
        let permit = places
            .acquire_owned()
            .await
            .map_err(|_| SourceError::Cancelled)?;
        let label = request.label(url);
        let begun = Instant::now();
        let response = match self.exchange(request, url, authorization).await {
            // A connection that lay idle may have been closed by the other side just now, and there is no
            // telling before it is used. What only reads is simply asked again.
            Err(SourceError::Transport { source, .. }) if request.reads() && is_broken(&source) => {
                self.exchange(request, url, authorization).await?
            }
            other => other?,
        };
        tracing::debug!(
            host,
            request = label,
            status = response.status().as_u16(),
            elapsed_ms = begun.elapsed().as_millis(),
            "answer"
        );
        Ok(Answer {
            host,
            request: label,
            response,
            stall_timeout: self.settings.stall_timeout,
            _permit: permit,
        })
    }

    /// Sends a request and waits for the head of the answer, for as long as its body moves.
    async fn exchange(
        &self,
        request: &Request,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<reqwest::Response, SourceError> {
        // What is for a host alone does not follow a redirect to another one.
        let route = request.route.as_ref().filter(|route| route.has(url));
        let dial = route.and_then(|route| route.dial.as_deref());
        let client = self.connections.client(url.scheme() == "https", dial)?;
        let progress = Progress::default();
        let mut builder = client
            .request(request.method.clone(), url.clone())
            .headers(request.headers.clone());
        if let Some(route) = route {
            builder = builder.headers(route.header.clone());
        }
        if let Some(authorization) = authorization {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        if !request.reads() {
            builder = builder
                .header(CONTENT_LENGTH, request.body.len())
                .body(request.body.open(&progress).await?);
        }
        let send = builder.send();
        tokio::pin!(send);
        let (mut sent, mut silent) = (0, Duration::ZERO);
        loop {
            let stall = self.settings.stall_timeout;
            match tokio::time::timeout(stall, &mut send).await {
                Ok(done) => {
                    return done.map_err(|source| SourceError::transport(&url_host(url), source));
                }
                Err(_) if progress.sent() > sent => {
                    sent = progress.sent();
                    silent = Duration::ZERO;
                }
                Err(_) => silent = silent.saturating_add(stall),
            }
            if silent >= self.patience(request, sent) {
                return Err(SourceError::Stalled {
                    host: url_host(url),
                    silent_ms: silent.as_millis(),
                });
            }
        }
    }

    /// How long a server may be silent, of a request's body having `sent` bytes.
    fn patience(&self, request: &Request, sent: u64) -> Duration {
        match &request.body {
            _ if request.reads() => self.settings.stall_timeout,
            body if !body.is_watched() => self.settings.commit_timeout.min(WRITE_TIMEOUT),
            body if sent < body.len() => self.settings.stall_timeout,
            _ => self.settings.commit_timeout,
        }
    }

    /// The queue of a host.
    fn places(&self, host: &str, lane: Lane) -> Arc<Semaphore> {
        let size = match lane {
            Lane::Request => REQUESTS_PER_HOST,
            Lane::Stream => STREAMS_PER_HOST,
        };
        let mut all = self.places.lock();
        if all.len() >= HOSTS_MAX {
            all.retain(|_, places| Arc::strong_count(places) > 1);
        }
        all.entry((host.to_owned(), lane))
            .or_insert_with(|| Arc::new(Semaphore::new(size)))
            .clone()
    }
}
