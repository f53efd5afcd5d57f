//! Reading from one host after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use draught_digest::Digest;
use parking_lot::Mutex;

use super::client::RegistryRepository;
use crate::error::{Class, SourceError};
use crate::hosts::{Capability, Route};

/// How long a host that lacks something is asked for it after all others: a mirror that fills itself has it soon,
/// and until then it costs each reader a request.
const ABSENT_FOR: Duration = Duration::from_secs(60);

/// Things remembered to be lacking.
const ABSENT_MAX: usize = 4096;

/// What hosts lack, or have in a wrong form, by their names.
#[derive(Debug, Default)]
pub(super) struct Absent(Mutex<BTreeMap<(String, Digest), Instant>>);

impl Absent {
    fn has(&self, route: &Route, digest: &Digest) -> bool {
        let all = self.0.lock();
        let since = all.get(&(route.name().to_owned(), *digest));
        since.is_some_and(|since| since.elapsed() < ABSENT_FOR)
    }

    fn add(&self, route: &Route, digest: Digest) {
        let mut all = self.0.lock();
        if all.len() >= ABSENT_MAX {
            all.retain(|_, since| since.elapsed() < ABSENT_FOR);
        }
        if all.len() < ABSENT_MAX {
            all.insert((route.name().to_owned(), digest), Instant::now());
        }
    }
}

impl RegistryRepository {
    /// The hosts to ask, in order: those that are well and have it as far as is known, then the others.
    pub(super) fn hosts_for(
        &self,
        what: Capability,
        digest: Option<&Digest>,
    ) -> Result<Vec<Arc<Route>>, SourceError> {
        let routes = self.routes()?;
        let mut routes: Vec<_> = routes.iter().filter(|route| route.can(what)).collect();
        if routes.is_empty() {
            return Err(SourceError::NoHost {
                registry: self.host().to_owned(),
                capability: what.word(),
            });
        }
        if routes.len() > 1 {
            let hosts = &self.settings().hosts;
            let is_last = |route: &Route| {
                let lacks = digest.is_some_and(|digest| self.absent().has(route, digest));
                lacks || !hosts.is_well(route)
            };
            // Stable: otherwise in the order of the file.
            routes.sort_by_cached_key(|route| is_last(route));
        }
        Ok(routes.into_iter().cloned().collect())
    }

    /// Reads from the first host that has it. What goes wrong at one is no error as long as there is another; if
    /// all fail, the server's word counts.
    pub(super) async fn read_from_any<T, F: Future<Output = Result<T, SourceError>>>(
        &self,
        what: Capability,
        digest: Option<&Digest>,
        mut read: impl FnMut(Arc<Route>) -> F,
    ) -> Result<T, SourceError> {
        let mut failed = None;
        for route in self.hosts_for(what, digest)? {
            match read(Arc::clone(&route)).await {
                Ok(value) => {
                    self.settings().hosts.works(&route);
                    return Ok(value);
                }
                Err(error) => {
                    self.note(&route, digest, &error);
                    if failed.is_none() || route.is_server {
                        failed = Some(error);
                    }
                }
            }
        }
        Err(failed.unwrap_or(SourceError::Cancelled))
    }

    /// Notes that what was read of a blob was not the blob: for a while the registry's server is asked for it
    /// first, and whoever stands for it last.
    pub fn distrust(&self, blob: &Digest) {
        self.moved().forget(blob);
        let routes = self.routes().ok();
        let all = routes.iter().flat_map(|routes| routes.iter());
        for route in all.filter(|route| !route.is_server) {
            self.absent().add(route, *blob);
        }
    }

    /// Remembers what went wrong at a host, so that others are asked before it.
    pub(super) fn note(&self, route: &Route, digest: Option<&Digest>, error: &SourceError) {
        let host = route.host.as_str();
        let why = error as &dyn std::error::Error;
        match (error.class(), digest) {
            // It answers, only not this.
            (Class::NotFound | Class::Denied | Class::Corrupt, Some(digest)) => {
                self.absent().add(route, *digest);
            }
            (Class::NotFound | Class::Denied, None) => {}
            _ => self.settings().hosts.failed(route),
        }
        if !route.is_server {
            tracing::debug!(
                host,
                registry = self.host(),
                error = why,
                "another host is asked"
            );
        }
    }
}
