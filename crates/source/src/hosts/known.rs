//! What is known of hosts: their files, read again when they change, and how they are.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::Url;

use super::directory::{self, Found, Looked, Watched};
use super::file::{HostsFile, HostsFileError};
use super::health::Health;
use super::route::Route;
use crate::stamp;

/// How often it is looked whether files changed, at most: a system call or two for each host and second.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Registries whose files are remembered; beyond, all are read anew.
const REGISTRIES_MAX: usize = 256;

/// Why it isn't known how to reach a registry. It is asked for again with every request: files get repaired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostsError {
    /// A file can't be read.
    #[error("a file about the registry's hosts can't be read")]
    Read {
        /// With the path in it.
        source: io::Error,
    },
    /// A file makes no sense.
    #[error("{path} can't be used")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: HostsFileError,
    },
    /// A certificate of ours without its key.
    #[error("{path} has no key beside it")]
    NoKey {
        /// The certificate.
        path: PathBuf,
    },
}

/// Directories with files about hosts, what they say, and how the hosts are. Clones share all of it.
#[derive(Debug, Clone, Default)]
pub struct Hosts(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    roots: Vec<PathBuf>,
    read: Mutex<BTreeMap<(String, Url), Read>>,
    health: Health,
}

/// What was read for a registry.
#[derive(Debug)]
struct Read {
    looked: Instant,
    watched: Vec<Watched>,
    routes: Result<Arc<[Arc<Route>]>, Arc<HostsError>>,
}

impl Hosts {
    /// No directories: every registry is asked itself.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Directories such as `/etc/containerd/certs.d`, most wanted first. They need not be there.
    #[must_use]
    pub fn of(roots: Vec<PathBuf>) -> Self {
        Self(Arc::new(Known {
            roots,
            ..Known::default()
        }))
    }

    /// The directories.
    #[must_use]
    pub fn roots(&self) -> &[PathBuf] {
        &self.0.roots
    }

    /// Looks at what all directories say, whichever registry they are for.
    #[must_use]
    pub fn look(&self) -> Vec<Looked> {
        directory::look(&self.0.roots)
    }

    /// Where a registry's content is, in the order of its file; the server is the last. `own` is where it
    /// is unless a file says something else.
    pub(crate) fn routes(
        &self,
        registry: &str,
        own: &Url,
    ) -> Result<Arc<[Arc<Route>]>, Arc<HostsError>> {
        if self.0.roots.is_empty() {
            return Ok(Arc::new([Arc::new(Route::plain(registry, own.clone()))]));
        }
        let mut all = self.0.read.lock();
        let key = (registry.to_owned(), own.clone());
        if let Some(read) = all.get_mut(&key) {
            let is_same = |(path, then): &Watched| stamp::stamp(path) == *then;
            if read.looked.elapsed() < LOOK_EVERY || read.watched.iter().all(is_same) {
                if read.looked.elapsed() >= LOOK_EVERY {
                    read.looked = Instant::now();
                }
                return read.routes.clone();
            }
        }
        let read = self.read(registry, own);
        let routes = read.routes.clone();
        if all.len() >= REGISTRIES_MAX {
            all.clear();
        }
        all.insert(key, read);
        routes
    }

    fn read(&self, registry: &str, own: &Url) -> Read {
        let mut found = Found::default();
        let looked = Instant::now();
        let routes = match directory::read(&self.0.roots, registry, &mut found) {
            Ok(()) => Ok(to_routes(registry, own, &found)),
            Err(error) => {
                let why = &error as &dyn std::error::Error;
                tracing::error!(
                    registry,
                    error = why,
                    "images of this registry can't be read"
                );
                Err(Arc::new(error))
            }
        };
        Read {
            looked,
            watched: found.watched,
            routes,
        }
    }

    /// That a host answered as it should.
    pub(crate) fn works(&self, route: &Route) {
        self.0.health.works(route.name());
    }

    /// That a host did not.
    pub(crate) fn failed(&self, route: &Route) {
        self.0.health.failed(route.name(), Instant::now());
    }

    /// Whether nothing is known against a host.
    pub(crate) fn is_well(&self, route: &Route) -> bool {
        self.0.health.is_well(route.name(), Instant::now())
    }
}

fn to_routes(registry: &str, own: &Url, found: &Found) -> Arc<[Arc<Route>]> {
    let default = HostsFile {
        hosts: Vec::new(),
        server: super::HostSettings::default(),
        unknown: Vec::new(),
    };
    let file = found.file.as_ref().unwrap_or(&default);
    if !file.unknown.is_empty() {
        tracing::warn!(registry, fields = ?file.unknown, "fields about its hosts are not known and not used");
    }
    let server = &file.server;
    let hosts = file.hosts.iter().map(|host| (false, host));
    hosts
        .chain([(true, server)])
        .map(|(is_server, host)| {
            let base = host.url.clone().unwrap_or_else(|| own.clone());
            Arc::new(Route::new(registry, base, is_server, host, &found.watched))
        })
        .collect()
}
