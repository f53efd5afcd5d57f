//! Token servers: a scope in, a token out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::login::{EXPIRES_MAX, basic};
use crate::credentials::Credential;
use crate::error::{Class, SourceError};
use crate::hosts::Route;
use crate::http::{Authority, Body, Request, url_host};
use crate::secret::Secret;
use crate::settings::LIST_BYTES_MAX;

/// How long a token is good when the server does not say, as the specification has it.
const EXPIRES_DEFAULT: Duration = Duration::from_secs(60);

/// Who we are to a token server; it only logs it.
const CLIENT_ID: &str = "draught";

/// A token that lets us in, and how long.
pub(super) struct Token {
    pub(super) value: Secret,
    pub(super) begun: Instant,
    pub(super) lifetime: Duration,
}

/// What is asked of a token server.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    /// Who wants the token.
    pub(super) route: &'a Arc<Route>,
    pub(super) repository: &'a str,
    /// The token server, as the registry names it.
    pub(super) realm: &'a str,
    pub(super) service: &'a str,
    pub(super) scopes: &'a [String],
}

/// No `Debug`: it holds the token.
#[derive(Deserialize)]
struct WireToken {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// Fetches a token. The credential goes to the token server that its registry named, over TLS (or loopback).
pub(super) async fn fetch(
    authority: &Authority,
    ask: &Ask<'_>,
    credential: Option<&Credential>,
) -> Result<Token, SourceError> {
    let host = &ask.route.host;
    let refuse = |reason| SourceError::Redirect {
        host: host.clone(),
        target: "its token server".to_owned(),
        reason,
    };
    let realm = Url::parse(ask.realm).map_err(|_| refuse("not a URL"))?;
    // The same rules as for redirects of the registry.
    let realm = authority.target(&ask.route.base, realm.as_str())?;
    let route = Arc::new(ask.route.to_token_server(realm.clone()));
    let (request, authorization) = match credential {
        Some(Credential::IdentityToken(token)) => (refresh(realm, ask, token), None),
        Some(Credential::Password { username, password }) => {
            (get(realm, ask), Some(basic(username, password)))
        }
        Some(Credential::RegistryToken(_)) | None => (get(realm, ask), None),
    };
    let authorization = authorization
        .transpose()
        .map_err(|_| SourceError::Protocol {
            host: host.clone(),
            what: "name or password has characters that no header can carry",
        })?;
    let request = request.to(&route);
    let server = url_host(&request.url);
    let begun = Instant::now();
    let answer = authority
        .send(&request, authorization.as_ref())
        .await?
        .answer;
    if answer.status() != StatusCode::OK {
        return Err(refused(
            answer.into_error().await,
            ask,
            credential.is_some(),
            server,
        ));
    }
    let body = answer.bytes("token", LIST_BYTES_MAX).await?;
    let senseless = || SourceError::Protocol {
        host: server.clone(),
        what: "no token in the token server's answer",
    };
    let wire: WireToken = serde_json::from_slice(&body).map_err(|_| senseless())?;
    let value = wire
        .token
        .filter(|token| !token.is_empty())
        .or(wire.access_token)
        .filter(|token| !token.is_empty())
        .ok_or_else(senseless)?;
    let lifetime = wire
        .expires_in
        .map_or(EXPIRES_DEFAULT, Duration::from_secs)
        .min(EXPIRES_MAX);
    Ok(Token {
        value: Secret::new(value),
        begun,
        lifetime,
    })
}

/// What a token server's refusal means.
fn refused(error: SourceError, ask: &Ask<'_>, had_credential: bool, server: String) -> SourceError {
    // A refresh token that ended is answered with 400 (RFC 6749, 5.2).
    let denied = error.class() == Class::Denied
        || matches!(error, SourceError::Status { status: 400, .. }) && had_credential;
    match (denied, had_credential) {
        (false, _) => error,
        (true, true) => SourceError::CredentialsRejected {
            host: server,
            repository: ask.repository.to_owned(),
        },
        (true, false) => SourceError::NoCredentials {
            host: ask.route.host.clone(),
            repository: ask.repository.to_owned(),
        },
    }
}

/// The way of docker's token specification.
fn get(mut realm: Url, ask: &Ask<'_>) -> Request {
    {
        let mut query = realm.query_pairs_mut();
        if !ask.service.is_empty() {
            query.append_pair("service", ask.service);
        }
        for scope in ask.scopes {
            query.append_pair("scope", scope);
        }
    }
    Request::new(Method::GET, realm)
}

/// The way of OAuth 2, for identity tokens.
fn refresh(realm: Url, ask: &Ask<'_>, token: &Secret) -> Request {
    // A URL's query has the same encoding as a form.
    let mut form = realm.clone();
    form.query_pairs_mut()
        .clear()
        .append_pair("grant_type", "refresh_token")
        .append_pair("service", ask.service)
        .append_pair("client_id", CLIENT_ID)
        .append_pair("scope", &ask.scopes.join(" "))
        .append_pair("refresh_token", token.expose());
    let form = Bytes::from(form.query().unwrap_or_default().to_owned());
    Request::new(Method::POST, realm)
        .with_header(
            CONTENT_TYPE.as_str(),
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        )
        .with_body(Body::Bytes(form))
}
