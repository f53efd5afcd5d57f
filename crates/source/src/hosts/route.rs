//! One host that may have what a registry has, and how it is spoken to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderMap;

use super::directory::Watched;
use super::file::{Capability, ClientFiles, HostSettings};
use crate::http::url_host;

/// How a connection is made, where a file says more than usual. The stamps make files that changed another
/// way of connecting.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Dial {
    pub(crate) ca: Vec<PathBuf>,
    pub(crate) client: Vec<ClientFiles>,
    pub(crate) skip_verify: bool,
    pub(crate) timeout: Option<Duration>,
    pub(super) stamps: Vec<Watched>,
}

/// One host.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// Below this it has its repositories.
    pub(crate) base: Url,
    /// Its name, by which credentials are looked up.
    pub(crate) host: String,
    /// The registry that is meant, where that is another one.
    pub(crate) stands_for: Option<String>,
    /// Whether it is the registry's server, whose word is the last.
    pub(crate) is_server: bool,
    /// How to connect; none: as usual.
    pub(crate) dial: Option<Arc<Dial>>,
    /// Sent with every request to it.
    pub(crate) header: HeaderMap,
    pull: bool,
    resolve: bool,
}

impl Route {
    /// A registry without a file.
    pub(crate) fn plain(registry: &str, base: Url) -> Self {
        Self::new(registry, base, true, &HostSettings::default(), &[])
    }

    pub(super) fn new(
        registry: &str,
        base: Url,
        is_server: bool,
        settings: &HostSettings,
        watched: &[Watched],
    ) -> Self {
        let host = match url_host(&base) {
            // One registry, three names.
            host if ["registry-1.docker.io", "index.docker.io"].contains(&host.as_str()) => {
                "docker.io".to_owned()
            }
            host => host,
        };
        let dial = Dial {
            ca: settings.ca.clone(),
            client: settings.client.clone(),
            skip_verify: settings.skip_verify,
            timeout: settings.dial_timeout,
            stamps: Vec::new(),
        };
        let dial = (dial != Dial::default()).then(|| {
            let keys = dial.client.iter().filter_map(|files| files.key.as_ref());
            let certificates = dial.client.iter().map(|files| &files.certificate);
            let files: Vec<&PathBuf> = dial.ca.iter().chain(certificates).chain(keys).collect();
            let mut stamps = watched.to_vec();
            stamps.retain(|(path, _)| files.contains(&path));
            Arc::new(Dial { stamps, ..dial })
        });
        Self {
            stands_for: (host != registry).then(|| registry.to_owned()),
            base,
            host,
            is_server,
            dial,
            header: settings.header.clone(),
            pull: settings.pull,
            resolve: settings.resolve,
        }
    }

    /// The same way of connecting, to the token server that this host names. What is for the host alone
    /// is not sent there.
    pub(crate) fn to_token_server(&self, realm: Url) -> Self {
        Self {
            base: realm,
            header: HeaderMap::new(),
            ..self.clone()
        }
    }

    /// What tells it from all others.
    pub(crate) fn name(&self) -> &str {
        self.base.as_str()
    }

    /// Whether it may be asked for that.
    pub(crate) fn can(&self, what: Capability) -> bool {
        match what {
            Capability::Pull => self.pull,
            Capability::Resolve => self.resolve,
        }
    }

    /// Whether a URL is one of this host.
    pub(crate) fn has(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }
}
