//! The client: what all repositories share, and one repository of a registry.

use std::collections::BTreeMap;
use std::sync::Arc;

use draught_digest::Digest;
use parking_lot::Mutex;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode, Url};

use super::range::Moved;
use crate::auth::{Login, Scope};
use crate::error::SourceError;
use crate::http::{Answer, Authority, Request, Sent};
use crate::retry;
use crate::settings::Settings;

/// Registries remembered at once; beyond, those that nobody uses are forgotten with their tokens.
const LOGINS_MAX: usize = 256;

/// What all repositories share: connections, tokens, settings. Clones are the same client.
#[derive(Debug, Clone)]
pub struct Client(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    authority: Authority,
    logins: Mutex<BTreeMap<String, Arc<Login>>>,
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
        let base = Url::parse(&format!("{scheme}://{server}/v2/{repository}/")).map_err(|_| {
            SourceError::Protocol {
                host: host.to_owned(),
                what: "host and repository make no URL",
            }
        })?;
        let mut logins = self.0.logins.lock();
        if logins.len() >= LOGINS_MAX {
            logins.retain(|_, login| Arc::strong_count(login) > 1);
        }
        let login = logins
            .entry(host.to_owned())
            .or_insert_with(|| Arc::new(Login::new(host)))
            .clone();
        drop(logins);
        Ok(RegistryRepository(Arc::new(Repository {
            client: self.clone(),
            login,
            base,
            host: host.to_owned(),
            name: repository.to_owned(),
            moved: Moved::default(),
        })))
    }
}

/// One repository of a registry. Clones are the same repository.
#[derive(Debug, Clone)]
pub struct RegistryRepository(Arc<Repository>);

#[derive(Debug)]
struct Repository {
    client: Client,
    login: Arc<Login>,
    base: Url,
    host: String,
    name: String,
    moved: Moved,
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

    /// A URL below `/v2/REPOSITORY/`.
    pub(super) fn url(&self, path: &str) -> Result<Url, SourceError> {
        self.0
            .base
            .join(path)
            .map_err(|_| self.senseless("path makes no URL"))
    }

    /// The URL of a blob.
    pub(super) fn blob_url(&self, digest: &Digest) -> Result<Url, SourceError> {
        // "./", or the digest's colon would make it a scheme.
        self.url(&format!("./blobs/{digest}"))
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

    /// Sends a request, with what lets us in if the URL is the registry's own; after a 401, once more with
    /// something newer.
    pub(super) async fn send(&self, request: &Request, scope: &Scope) -> Result<Sent, SourceError> {
        let authority = self.authority();
        // An upload may go on at another host: what lets us in here is not for there.
        if request.url.origin() != self.0.base.origin() {
            return authority.send(request, None).await;
        }
        let login = &self.0.login;
        let ticket = login.ticket(authority, scope).await?;
        let header = ticket.as_ref().map(|ticket| &ticket.header);
        let sent = authority.send(request, header).await?;
        if !asks_for_login(&sent) {
            return Ok(sent);
        }
        let headers = sent.answer.headers().clone();
        sent.answer.discard().await;
        let ticket = login
            .renew(authority, scope, &headers, ticket.as_ref())
            .await?;
        let sent = authority.send(request, Some(&ticket.header)).await?;
        if asks_for_login(&sent) {
            return Err(login.rejected(scope));
        }
        Ok(sent)
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
