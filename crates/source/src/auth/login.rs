//! What lets us in at one registry: learned from its challenges, kept until it ends, never sent elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use parking_lot::Mutex;
use reqwest::header::{HeaderMap, HeaderValue, InvalidHeaderValue};

use super::challenge::{self, Challenge};
use super::token;
use crate::credentials::Credential;
use crate::error::SourceError;
use crate::http::Authority;
use crate::secret::Secret;

/// Scopes for which a token is kept; beyond, all are fetched anew.
const SCOPES_MAX: usize = 1024;

/// What a request needs a token for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scope {
    /// The repository.
    pub(crate) repository: String,
    /// `pull`, `pull,push` or `delete`.
    pub(crate) actions: &'static str,
    /// A second repository, to read from: for mounts.
    pub(crate) from: Option<String>,
}

impl Scope {
    /// As token servers want it, the registry's own wishes included.
    fn texts(&self, wished: &[String]) -> Vec<String> {
        let mut texts = vec![format!("repository:{}:{}", self.repository, self.actions)];
        if let Some(from) = &self.from {
            texts.push(format!("repository:{from}:pull"));
        }
        // Only wishes about something else: of this repository we know what we need.
        let own = format!("repository:{}:", self.repository);
        for wish in wished {
            if !texts.contains(wish) && !wish.starts_with(&own) {
                texts.push(wish.clone());
            }
        }
        texts
    }
}

/// A header that lets us in. Which one it is counts up, so that of two requests that fail with the same
/// one only the first fetches another.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    pub(crate) header: HeaderValue,
    serial: u64,
    expires: Option<Instant>,
}

impl Ticket {
    fn is_over(&self) -> bool {
        self.expires
            .is_some_and(|expires| expires <= Instant::now())
    }
}

type Slot = Arc<tokio::sync::Mutex<Option<Ticket>>>;

/// What is known of one registry's door.
#[derive(Debug, Default)]
pub(crate) struct Login {
    host: String,
    challenge: Mutex<Option<Challenge>>,
    slots: Mutex<BTreeMap<Scope, Slot>>,
}

impl Login {
    pub(crate) fn new(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            ..Self::default()
        }
    }

    /// What to send with a request before anything was refused: what is kept, or a token fetched ahead when
    /// the registry is known to want one and the last has ended. Nothing for a registry not met yet.
    pub(crate) async fn ticket(
        &self,
        authority: &Authority,
        scope: &Scope,
    ) -> Result<Option<Ticket>, SourceError> {
        let slot = self.slot(scope);
        let mut slot = slot.lock().await;
        if let Some(ticket) = slot.as_ref().filter(|ticket| !ticket.is_over()) {
            return Ok(Some(ticket.clone()));
        }
        let Some(challenge) = self.challenge.lock().clone() else {
            return Ok(None);
        };
        self.fetch(authority, scope, &challenge, &mut slot)
            .await
            .map(Some)
    }

    /// What to send after a request with `refused` was answered 401: another, or an error.
    pub(crate) async fn renew(
        &self,
        authority: &Authority,
        scope: &Scope,
        headers: &HeaderMap,
        refused: Option<&Ticket>,
    ) -> Result<Ticket, SourceError> {
        let challenge = challenge::best(headers).ok_or_else(|| SourceError::Protocol {
            host: self.host.clone(),
            what: "401 without a challenge that we know",
        })?;
        // Wishes belong to one request; the next has its own.
        *self.challenge.lock() = Some(match &challenge {
            Challenge::Bearer { realm, service, .. } => Challenge::Bearer {
                realm: realm.clone(),
                service: service.clone(),
                scopes: Vec::new(),
            },
            Challenge::Basic => Challenge::Basic,
        });
        let slot = self.slot(scope);
        let mut slot = slot.lock().await;
        let serial = refused.map(|ticket| ticket.serial);
        if let Some(newer) = slot
            .as_ref()
            .filter(|ticket| Some(ticket.serial) != serial && !ticket.is_over())
        {
            return Ok(newer.clone());
        }
        let old = refused.map(|ticket| ticket.header.clone());
        let ticket = self.fetch(authority, scope, &challenge, &mut slot).await?;
        if challenge == Challenge::Basic && old.as_ref() == Some(&ticket.header) {
            *slot = None;
            return Err(self.rejected(scope));
        }
        Ok(ticket)
    }

    /// The error for a ticket that was refused though new.
    pub(crate) fn rejected(&self, scope: &Scope) -> SourceError {
        SourceError::CredentialsRejected {
            host: self.host.clone(),
            repository: scope.repository.clone(),
        }
    }

    async fn fetch(
        &self,
        authority: &Authority,
        scope: &Scope,
        challenge: &Challenge,
        slot: &mut Option<Ticket>,
    ) -> Result<Ticket, SourceError> {
        let credential = authority
            .settings
            .credentials
            .lookup(&self.host, &scope.repository)
            .await
            .map_err(|source| SourceError::Credentials {
                host: self.host.clone(),
                source,
            })?;
        let (header, expires) = match (challenge, &credential) {
            (_, Some(Credential::RegistryToken(token))) => (bearer(token), None),
            (
                Challenge::Bearer {
                    realm,
                    service,
                    scopes,
                },
                credential,
            ) => {
                let ask = token::Ask {
                    host: &self.host,
                    repository: &scope.repository,
                    realm,
                    service,
                    scopes: &scope.texts(scopes),
                };
                let token = token::fetch(authority, &ask, credential.as_ref()).await?;
                (bearer(&token.value), Some(token.expires))
            }
            (Challenge::Basic, Some(Credential::Password { username, password })) => {
                (basic(username, password), None)
            }
            (Challenge::Basic, Some(Credential::IdentityToken(_)) | None) => {
                return Err(SourceError::NoCredentials {
                    host: self.host.clone(),
                    repository: scope.repository.clone(),
                });
            }
        };
        let header = header.map_err(|_| SourceError::Protocol {
            host: self.host.clone(),
            what: "a token or password has characters that no header can carry",
        })?;
        let serial = slot.as_ref().map_or(0, |old| old.serial.wrapping_add(1));
        let ticket = Ticket {
            header,
            serial,
            expires,
        };
        *slot = Some(ticket.clone());
        Ok(ticket)
    }

    fn slot(&self, scope: &Scope) -> Slot {
        let mut slots = self.slots.lock();
        if slots.len() >= SCOPES_MAX && !slots.contains_key(scope) {
            slots.clear();
        }
        slots.entry(scope.clone()).or_default().clone()
    }
}

/// A header value that is not shown.
fn sensitive(text: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(text)?;
    value.set_sensitive(true);
    Ok(value)
}

/// `Basic …`.
pub(super) fn basic(username: &str, password: &Secret) -> Result<HeaderValue, InvalidHeaderValue> {
    let text = format!("{username}:{}", password.expose());
    sensitive(&format!("Basic {}", BASE64.encode(text)))
}

/// `Bearer …`.
fn bearer(token: &Secret) -> Result<HeaderValue, InvalidHeaderValue> {
    sensitive(&format!("Bearer {}", token.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_asks_for_what_is_needed_and_what_else_the_registry_wishes() {
        let scope = Scope {
            repository: "a/b".to_owned(),
            actions: "pull,push",
            from: Some("c".to_owned()),
        };
        let wished = [
            "repository:a/b:pull",
            "repository:c:pull",
            "registry:catalog:*",
        ];
        assert_eq!(
            scope.texts(&wished.map(str::to_owned)),
            [
                "repository:a/b:pull,push",
                "repository:c:pull",
                "registry:catalog:*"
            ]
        );
    }

    #[test]
    fn tickets_are_not_shown() {
        let header = basic("user", &Secret::new("hunter2")).unwrap();
        let ticket = Ticket {
            header,
            serial: 0,
            expires: None,
        };
        let shown = format!("{ticket:?}");
        assert!(shown.contains("Sensitive"), "{shown}");
        assert!(!shown.contains("dXNlcjpodW50ZXIy"), "{shown}");
    }
}
