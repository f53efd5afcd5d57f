//! The client: what all repositories share, and one repository of a registry.

use std::collections::BTreeMap;
use std::sync::Arc;

use draught_digest::Digest;
use parking_lot::Mutex;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode, Url};

use super::range::Moved;
use super::reading::Absent;
use crate::auth::{CANDIDATES_MAX, Door, Login, Scope};
use crate::error::SourceError;
use crate::hosts::Route;
use crate::http::{Answer, Authority, Request, Sent};
use crate::retry;
use crate::settings::Settings;

/// Hosts remembered at once; beyond, those that nobody uses are forgotten with their tokens.
const LOGINS_MAX: usize = 256;

/// By which a host that stands for a registry is told which one, as containerd does.
const NAMESPACE: &str = "ns";

/// What all repositories share: connections, tokens, settings. Clones are the same client.
#[derive(Debug, Clone)]
pub struct Client(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    authority: Authority,
    /// By registry, and by what stands for it.
    logins: Mutex<BTreeMap<(String, String), Arc<Login>>>,
}

impl Client {
    /// A client. It connects nowhere yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Shared {
            authority: Authority::new(settings),
            logins: Mutex::default(),
        }))
    }

    /// How it behaves.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.authority.settings
    }

    /// What sends requests.
    pub(crate) fn authority(&self) -> &Authority {
        &self.0.authority
    }

    /// A repository of a registry.
    ///
    /// # Errors
    /// [`SourceError::Protocol`] when no URL can be made of the host.
    pub fn registry(
        &self,
        host: &str,
        repository: &str,
    ) -> Result<RegistryRepository, SourceError> {
        let server = match host {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let scheme = if self.settings().is_plain_http(server) {
            "http"
        } else {
            "https"
        };
        let base =
            Url::parse(&format!("{scheme}://{server}/v2/")).map_err(|_| SourceError::Protocol {
                host: host.to_owned(),
                what: "host and repository make no URL",
            })?;
        Ok(RegistryRepository(Arc::new(Repository {
            client: self.clone(),
            base,
            host: host.to_owned(),
            name: repository.to_owned(),
            moved: Moved::default(),
            absent: Absent::default(),
        })))
    }

    /// What is known of a host's door.
    fn login(&self, registry: &str, route: &Route) -> Arc<Login> {
        let mut logins = self.0.logins.lock();
        if logins.len() >= LOGINS_MAX {
            logins.retain(|_, login| Arc::strong_count(login) > 1);
        }
        logins
            .entry((registry.to_owned(), route.name().to_owned()))
            .or_insert_with(|| Arc::new(Login::new(registry, &route.host)))
            .clone()
    }
}

/// One repository of a registry. Clones are the same repository.
#[derive(Debug, Clone)]
pub struct RegistryRepository(Arc<Repository>);

#[derive(Debug)]
struct Repository {
    client: Client,
    /// Where the registry is, unless a file says something else.
    base: Url,
    host: String,
    name: String,
    moved: Moved,
    absent: Absent,
}

impl RegistryRepository {
    /// The registry, as references name it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// The repository's name in the registry.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// `HOST/REPOSITORY`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}/{}", self.0.host, self.0.name)
    }

    pub(super) fn settings(&self) -> &Settings {
        self.0.client.settings()
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.0.client.0.authority
    }

    /// Where blobs were last redirected to.
    pub(super) fn moved(&self) -> &Moved {
        &self.0.moved
    }

    /// Which hosts lack what.
    pub(super) fn absent(&self) -> &Absent {
        &self.0.absent
    }

    /// All hosts that stand for the registry, in the order of their file; the last is its server.
    pub(super) fn routes(&self) -> Result<Arc<[Arc<Route>]>, SourceError> {
        let hosts = &self.settings().hosts;
        hosts
            .routes(&self.0.host, &self.0.base)
            .map_err(|source| SourceError::Hosts {
                registry: self.0.host.clone(),
                source,
            })
    }

    /// The registry's server, which is written to and asked for lists.
    pub(super) fn server(&self) -> Result<Arc<Route>, SourceError> {
        let routes = self.routes()?;
        routes.last().cloned().ok_or_else(|| SourceError::NoHost {
            registry: self.0.host.clone(),
            capability: "push",
        })
    }

    /// A URL below `/v2/REPOSITORY/` of the server.
    pub(super) fn url(&self, path: &str) -> Result<Url, SourceError> {
        self.url_at(&*self.server()?, path)
    }

    /// A URL below `/v2/REPOSITORY/` of a host.
    pub(super) fn url_at(&self, route: &Route, path: &str) -> Result<Url, SourceError> {
        let path = format!("{}/{path}", self.0.name);
        let mut url = route
            .base
            .join(&path)
            .map_err(|_| self.senseless("path makes no URL"))?;
        if let Some(registry) = &route.stands_for {
            url.query_pairs_mut().append_pair(NAMESPACE, registry);
        }
        Ok(url)
    }

    /// The URL of a blob at the server.
    pub(super) fn blob_url(&self, digest: &Digest) -> Result<Url, SourceError> {
        self.url(&format!("blobs/{digest}"))
    }

    /// An answer that makes no sense.
    pub(super) fn senseless(&self, what: &'static str) -> SourceError {
        SourceError::Protocol {
            host: self.0.host.clone(),
            what,
        }
    }

    /// To read.
    pub(super) fn pull(&self) -> Scope {
        self.scope("pull", None)
    }

    /// To write.
    pub(super) fn push(&self) -> Scope {
        self.scope("pull,push", None)
    }

    pub(super) fn scope(&self, actions: &'static str, from: Option<&str>) -> Scope {
        Scope {
            repository: self.0.name.clone(),
            actions,
            from: from.map(str::to_owned),
        }
    }

    /// Sends a request, with what lets us in if the URL is the host's own; after a 401, again with
    /// something newer. A request without a host is for the server.
    pub(super) async fn send(&self, request: &Request, scope: &Scope) -> Result<Sent, SourceError> {
        let authority = self.authority();
        let route = match &request.route {
            Some(route) => Arc::clone(route),
            None => self.server()?,
        };
        // An upload may go on at another host: what lets us in here is not for there.
        if !route.has(&request.url) {
            return authority.send(request, None).await;
        }
        let request = &request.clone().to(&route);
        let login = self.0.client.login(&self.0.host, &route);
        let door = Door {
            client: &self.0.client,
            route: &route,
        };
        let mut ticket = login.ticket(&door, scope).await?;
        let mut is_fresh = false;
        // What is kept may have ended; then come all that may be had.
        for _ in 0..=CANDIDATES_MAX {
            let header = ticket.as_ref().map(|ticket| &ticket.header);
            let sent = authority.send(request, header).await?;
            if !asks_for_login(&sent) {
                return Ok(sent);
            }
            let headers = sent.answer.headers().clone();
            sent.answer.discard().await;
            let renewed = login.renew(&door, scope, &headers, ticket.as_ref(), is_fresh);
            ticket = Some(renewed.await?);
            is_fresh = true;
        }
        Err(login.rejected(scope))
    }

    /// [`Self::send`], where any answer but these is an error.
    pub(super) async fn expect(
        &self,
        request: &Request,
        scope: &Scope,
        expected: &[StatusCode],
    ) -> Result<Answer, SourceError> {
        let answer = self.send(request, scope).await?.answer;
        if expected.contains(&answer.status()) {
            return Ok(answer);
        }
        Err(answer.into_error().await)
    }

    /// [`Self::expect`], tried again as long as it may help.
    pub(super) async fn insist(
        &self,
        request: &Request,
        scope: &Scope,
        expected: &[StatusCode],
    ) -> Result<Answer, SourceError> {
        retry::insist(self.settings(), || self.expect(request, scope, expected)).await
    }

    /// Whether something is there.
    pub(super) async fn has(&self, url: Url) -> Result<Option<HeaderMap>, SourceError> {
        let request = Request::new(Method::HEAD, url);
        retry::insist(self.settings(), || async {
            let answer = self.send(&request, &self.pull()).await?.answer;
            match answer.status() {
                StatusCode::OK => Ok(Some(answer.headers().clone())),
                StatusCode::NOT_FOUND => Ok(None),
                _ => Err(crate::http::status_error(&answer)),
            }
        })
        .await
    }
}

/// Whether the registry itself (not a host that it redirected to) wants to know who we are.
fn asks_for_login(sent: &Sent) -> bool {
    sent.answer.status() == StatusCode::UNAUTHORIZED && sent.moved_to.is_none()
}
