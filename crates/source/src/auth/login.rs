//! The way through one door: which ticket lets us in, and when another is needed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use parking_lot::Mutex;
use reqwest::header::{HeaderMap, HeaderValue, InvalidHeaderValue};

use super::challenge::{self, Challenge};
use super::token;
use crate::credentials::{Credential, Found, Wanted};
use crate::error::SourceError;
use crate::hosts::Route;
use crate::registry::Client;
use crate::secret::Secret;

/// Scopes for which a token is kept; beyond, all are fetched anew.
const SCOPES_MAX: usize = 1024;

/// Credentials tried at one door. Nobody has more for one repository.
pub(crate) const CANDIDATES_MAX: usize = 16;

/// A ticket is used no longer than this, whatever anybody says.
pub(super) const EXPIRES_MAX: Duration = Duration::from_secs(12 * 3600);

/// How long before its end a ticket is not used any more, so that it does not end under way; of one
/// that lives shorter than four times this, the last quarter.
const EXPIRES_EARLY: Duration = Duration::from_secs(10);

/// How long after a token server did not answer it is asked again for a token that replaces one still good.
const RENEW_AGAIN: Duration = Duration::from_secs(5);

/// Which door, and what is needed to knock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Door<'a> {
    pub(crate) client: &'a Client,
    pub(crate) route: &'a Arc<Route>,
}

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
    life: Option<Life>,
    /// How many of the credentials that we have come before the one that it was had with.
    candidate: usize,
}

/// When a ticket is to be replaced while it is still good, and when it must not be used any more.
#[derive(Debug, Clone, Copy)]
struct Life {
    renewal: Instant,
    end: Instant,
}

impl Ticket {
    fn is_over(&self) -> bool {
        self.life.is_some_and(|life| life.end <= Instant::now())
    }

    fn is_due(&self) -> bool {
        self.life.is_some_and(|life| life.renewal <= Instant::now())
    }
}

/// A ticket for one scope.
#[derive(Debug, Default)]
struct Slot {
    ticket: tokio::sync::Mutex<Option<Ticket>>,
    /// Whether somebody fetches the next one while this one is still good.
    is_renewing: AtomicBool,
}

/// What is known of one door: that of a registry, or of a host that stands for it.
#[derive(Debug)]
pub(crate) struct Login {
    registry: String,
    host: String,
    challenge: Mutex<Option<Challenge>>,
    slots: Mutex<BTreeMap<Scope, Arc<Slot>>>,
}

impl Login {
    pub(crate) fn new(registry: &str, host: &str) -> Self {
        Self {
            registry: registry.to_owned(),
            host: host.to_owned(),
            challenge: Mutex::default(),
            slots: Mutex::default(),
        }
    }

    /// What to send with a request before anything was refused: what is kept, or a token fetched ahead when
    /// the registry is known to want one and the last has ended. Nothing for a registry not met yet.
    pub(crate) async fn ticket(
        self: &Arc<Self>,
        door: &Door<'_>,
        scope: &Scope,
    ) -> Result<Option<Ticket>, SourceError> {
        let slot = self.slot(scope);
        let mut ticket = slot.ticket.lock().await;
        if let Some(ticket) = ticket.as_ref().filter(|ticket| !ticket.is_over()) {
            if ticket.is_due() {
                self.renew_ahead(&slot, door, scope, ticket.serial);
            }
            return Ok(Some(ticket.clone()));
        }
        let Some(challenge) = self.challenge.lock().clone() else {
            return Ok(None);
        };
        let serial = next_serial(ticket.as_ref());
        let fetched = self.fetch(door, scope, &challenge, 0, serial).await?;
        *ticket = Some(fetched.clone());
        Ok(Some(fetched))
    }

    /// Fetches the next ticket while readers go on with this one.
    fn renew_ahead(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        door: &Door<'_>,
        scope: &Scope,
        serial: u64,
    ) {
        let Some(challenge) = self.challenge.lock().clone() else {
            return;
        };
        if slot.is_renewing.swap(true, Ordering::Relaxed) {
            return;
        }
        let (login, slot, scope) = (Arc::clone(self), Arc::clone(slot), scope.clone());
        let (client, route) = (door.client.clone(), Arc::clone(door.route));
        // It ends by itself: nothing in it waits for ever.
        drop(tokio::spawn(async move {
            let door = Door {
                client: &client,
                route: &route,
            };
            let serial_next = serial.wrapping_add(1);
            let fetched = login.fetch(&door, &scope, &challenge, 0, serial_next).await;
            let mut ticket = slot.ticket.lock().await;
            let current = ticket.as_mut().filter(|ticket| ticket.serial == serial);
            match (fetched, current) {
                (Ok(fetched), Some(current)) => *current = fetched,
                (Err(error), Some(current)) => {
                    let (host, error) = (&login.host, &error as &dyn std::error::Error);
                    tracing::debug!(host, error, "no new token yet, the old one is still good");
                    if let Some(life) = &mut current.life {
                        life.renewal = Instant::now() + RENEW_AGAIN;
                    }
                }
                // Somebody was refused meanwhile and has another.
                (_, None) => {}
            }
            slot.is_renewing.store(false, Ordering::Relaxed);
        }));
    }

    /// What to send after a request with `refused` was answered 401: another, or an error. `is_fresh`: it was
    /// refused although it had just been had, so that what it was had with is no use.
    pub(crate) async fn renew(
        &self,
        door: &Door<'_>,
        scope: &Scope,
        headers: &HeaderMap,
        refused: Option<&Ticket>,
        is_fresh: bool,
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
        let mut slot = slot.ticket.lock().await;
        let serial = refused.map(|ticket| ticket.serial);
        if let Some(newer) = slot
            .as_ref()
            .filter(|ticket| Some(ticket.serial) != serial && !ticket.is_over())
        {
            return Ok(newer.clone());
        }
        let serial = next_serial(slot.as_ref());
        // Until there is another one, nothing is known to be good.
        *slot = None;
        let after = refused.map_or(0, |ticket| ticket.candidate.saturating_add(1));
        let first = if is_fresh { after } else { 0 };
        let mut ticket = self.fetch(door, scope, &challenge, first, serial).await?;
        if refused.is_some_and(|refused| refused.header == ticket.header) {
            let next = after.max(first.saturating_add(1));
            ticket = self.fetch(door, scope, &challenge, next, serial).await?;
        }
        *slot = Some(ticket.clone());
        Ok(ticket)
    }

    /// The error for a ticket that was refused though new.
    pub(crate) fn rejected(&self, scope: &Scope) -> SourceError {
        SourceError::CredentialsRejected {
            host: self.host.clone(),
            repository: scope.repository.clone(),
        }
    }

    /// A ticket with the first credential that is taken, after those that are known to be no use.
    async fn fetch(
        &self,
        door: &Door<'_>,
        scope: &Scope,
        challenge: &Challenge,
        first: usize,
        serial: u64,
    ) -> Result<Ticket, SourceError> {
        let wanted = Wanted {
            host: &self.host,
            registry: &self.registry,
            repository: &scope.repository,
            from: scope.from.as_deref(),
        };
        for candidate in first..CANDIDATES_MAX {
            let credentials = &door.client.settings().credentials;
            let found = credentials
                .lookup(&wanted, candidate)
                .await
                .map_err(|source| SourceError::Credentials {
                    host: self.host.clone(),
                    source,
                })?;
            if found.is_none() && candidate > 0 {
                break;
            }
            let fetched = self.fetch_with(door, scope, challenge, found.as_ref());
            match fetched.await {
                Ok((header, life)) => {
                    return Ok(Ticket {
                        header,
                        serial,
                        life,
                        candidate,
                    });
                }
                // Somebody else may know a better one.
                Err(SourceError::CredentialsRejected { .. }) => {}
                Err(SourceError::NoCredentials { .. }) if found.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        Err(self.rejected(scope))
    }

    async fn fetch_with(
        &self,
        door: &Door<'_>,
        scope: &Scope,
        challenge: &Challenge,
        found: Option<&Found>,
    ) -> Result<(HeaderValue, Option<Life>), SourceError> {
        let life = found.and_then(|found| found.expires).map(Life::of);
        let credential = found.map(|found| &found.credential);
        let (header, life) = match (challenge, credential) {
            (_, Some(Credential::RegistryToken(token))) => (bearer(token), life),
            (
                Challenge::Bearer {
                    realm,
                    service,
                    scopes,
                },
                credential,
            ) => {
                let ask = token::Ask {
                    route: door.route,
                    repository: &scope.repository,
                    realm,
                    service,
                    scopes: &scope.texts(scopes),
                };
                let token = token::fetch(door.client.authority(), &ask, credential).await?;
                let life = Life {
                    renewal: token.begun + token.lifetime / 2,
                    end: token.begun + token.lifetime.saturating_sub(early(token.lifetime)),
                };
                (bearer(&token.value), Some(life))
            }
            (Challenge::Basic, Some(Credential::Password { username, password })) => {
                (basic(username, password), life)
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
        Ok((header, life))
    }

    fn slot(&self, scope: &Scope) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if slots.len() >= SCOPES_MAX && !slots.contains_key(scope) {
            slots.clear();
        }
        slots.entry(scope.clone()).or_default().clone()
    }
}

fn next_serial(old: Option<&Ticket>) -> u64 {
    old.map_or(0, |old| old.serial.wrapping_add(1))
}

/// How long before its end something is not used any more.
fn early(lifetime: Duration) -> Duration {
    EXPIRES_EARLY.min(lifetime / 4)
}

impl Life {
    /// Of a credential that is sent as it is: it is looked up anew shortly before it ends.
    fn of(expires: SystemTime) -> Self {
        let lifetime = expires.duration_since(SystemTime::now());
        let lifetime = lifetime.unwrap_or_default().min(EXPIRES_MAX);
        let end = Instant::now() + lifetime.saturating_sub(early(lifetime));
        Self { renewal: end, end }
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
            life: None,
            candidate: 0,
        };
        let shown = format!("{ticket:?}");
        assert!(shown.contains("Sensitive"), "{shown}");
        assert!(!shown.contains("dXNlcjpodW50ZXIy"), "{shown}");
    }
}
