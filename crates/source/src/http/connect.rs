//! HTTP clients, made when first used: one that never does TLS, one that does, and those for hosts that want
//! something of their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::identity;
use crate::error::{SourceError, TlsError};
use crate::hosts::Dial;

/// How long an idle connection is kept. Shorter than the minute after which servers drop theirs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Idle connections kept per host; as many as can be busy at once.
const IDLE_PER_HOST: usize = 32;

/// How we call ourselves.
const USER_AGENT: &str = concat!("draught/", env!("CARGO_PKG_VERSION"));

/// Clients for hosts of their own kept at once; there are as many as such hosts in files, and one more for
/// each time that their certificates change.
const CLIENTS_MAX: usize = 64;

/// The clients.
#[derive(Debug)]
pub(crate) struct Connections {
    connect_timeout: Duration,
    tls_ca: Vec<PathBuf>,
    clients: Mutex<BTreeMap<(bool, Dial), reqwest::Client>>,
}

impl Connections {
    /// No client yet: a machine without certificate authorities can still use a registry of its own.
    pub(crate) fn new(connect_timeout: Duration, tls_ca: Vec<PathBuf>) -> Self {
        Self {
            connect_timeout,
            tls_ca,
            clients: Mutex::default(),
        }
    }

    /// The client for a URL's scheme, and for what its host wants.
    pub(crate) fn client(
        &self,
        with_tls: bool,
        dial: Option<&Dial>,
    ) -> Result<reqwest::Client, SourceError> {
        let key = (with_tls, dial.cloned().unwrap_or_default());
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = self
            .build(with_tls, &key.1)
            .map_err(|source| SourceError::Tls { source })?;
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }

    fn build(&self, with_tls: bool, dial: &Dial) -> Result<reqwest::Client, TlsError> {
        let mut roots = RootCertStore::empty();
        if with_tls {
            for path in self.tls_ca.iter().chain(&dial.ca) {
                add_path(&mut roots, path)?;
            }
            // What the system has and rustls can't read is of no use and does no harm.
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
            if roots.is_empty() && !dial.skip_verify {
                return Err(TlsError::NoRoots);
            }
        }
        // The provider is given here, not installed for the process: a library leaves that to programs.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Library)?;
        let builder = if dial.skip_verify {
            let anybody = identity::anybody(Arc::clone(&provider));
            builder
                .dangerous()
                .with_custom_certificate_verifier(anybody)
        } else {
            builder.with_root_certificates(roots)
        };
        let mut tls = if with_tls && !dial.client.is_empty() {
            let who = identity::read(&dial.client, &provider)?;
            builder.with_client_cert_resolver(who)
        } else {
            builder.with_no_client_auth()
        };
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(dial.timeout.unwrap_or(self.connect_timeout))
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .tcp_nodelay(true)
            .http2_adaptive_window(true)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(USER_AGENT);
        if !with_tls {
            // Plain HTTP is for this machine and its neighbours, where a proxy has no business.
            builder = builder.no_proxy();
        }
        builder.build().map_err(TlsError::Client)
    }
}

/// Adds the certificates of a file, or of all files in a directory.
fn add_path(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    if !path.is_dir() {
        return add_file(roots, path);
    }
    for entry in fs_err::read_dir(path).map_err(TlsError::Io)? {
        let file = entry.map_err(TlsError::Io)?.path();
        if file
            .extension()
            .is_some_and(|end| end == "crt" || end == "pem")
        {
            add_file(roots, &file)?;
        }
    }
    Ok(())
}

/// Adds the certificates of a file.
fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    let unreadable = |source| TlsError::File {
        path: path.to_owned(),
        source,
    };
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        roots
            .add(certificate.map_err(unreadable)?)
            .map_err(|source| TlsError::Certificate {
                path: path.to_owned(),
                source,
            })?;
    }
    Ok(())
}
