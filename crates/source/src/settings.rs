//! Settings, and the numbers behind them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::credentials::Credentials;
use crate::hosts::Hosts;
use crate::object::ObjectCredentials;

/// How long a connection (name, TCP, TLS) may take. A registry that needs longer is down for our purposes.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a server may be silent in the middle of an answer, or before it.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes per second below which an answer that is held in memory (a range, a manifest) is given up, beside
/// [`STALL_TIMEOUT`]: a server that sends a byte now and then would else hold a reader for days. Slower than
/// any modem of this century.
pub const RATE_BYTES_PER_S_MIN: u64 = 8 << 10;

/// How long a registry may take after the last byte of an upload: some verify or copy the blob then.
pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a registry may take to answer to a small thing that is written: a manifest makes some look at
/// every blob that it names.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests with short answers (manifests, ranges, questions) under way to one host. Enough to hide the
/// latency of a distant registry, few enough not to be taken for an attack.
pub const REQUESTS_PER_HOST: usize = 24;

/// Whole blobs under way from or to one host. Apart from the requests, so that a long download never
/// keeps a reader's fault waiting.
pub const STREAMS_PER_HOST: usize = 8;

/// How often an operation on a whole object is tried.
pub const ATTEMPTS: u32 = 5;

/// The wait before the second try; it doubles with each.
pub const RETRY_DELAY: Duration = Duration::from_millis(200);

/// No single wait between tries is longer, whatever a server asks for.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

/// Redirects followed in a row, as browsers and Go's client do.
pub(crate) const REDIRECTS_MAX: usize = 10;

/// Bytes of one ranged read, which is held in memory.
pub const RANGE_BYTES_MAX: u64 = 64 << 20;

/// Bytes skipped at the front of a whole blob when a server ignores the range that was asked for. What
/// this reads in vain costs no more than a few ranged requests.
pub const SKIP_BYTES_MAX: u64 = 4 << 20;

/// Bytes of an error's body that are read: registries' errors are some hundred bytes.
pub(crate) const ERROR_BYTES_MAX: usize = 16 << 10;

/// Bytes of a list of tags or referrers, per page, and of a token.
pub(crate) const LIST_BYTES_MAX: usize = 4 << 20;

/// Pages of a list that are followed: with 1,000 a page, more than anyone lists.
pub(crate) const LIST_PAGES_MAX: usize = 100;

/// For large files that are gone soon: on disk, where `/tmp` may be memory.
const SCRATCH_DIR: &str = "/var/tmp";

/// How a [`crate::Client`] behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Hosts (`host` or `host:port`) that speak plain HTTP. Loopback hosts always do.
    pub plain_http: Vec<String>,
    /// Loopback hosts (`host` or `host:port`) that speak TLS nevertheless.
    pub loopback_tls: Vec<String>,
    /// Files, or directories of files, with certificate authorities (PEM) beside the system's.
    pub tls_ca: Vec<PathBuf>,
    /// Where credentials are.
    pub credentials: Credentials,
    /// What files say of the hosts of registries. Repositories are read from the hosts that they name, in order,
    /// and written to the registry's server.
    pub hosts: Hosts,
    /// Where credentials of object stores are.
    pub object_credentials: ObjectCredentials,
    /// See [`CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// See [`STALL_TIMEOUT`].
    pub stall_timeout: Duration,
    /// See [`COMMIT_TIMEOUT`].
    pub commit_timeout: Duration,
    /// See [`ATTEMPTS`].
    pub attempts: u32,
    /// See [`RETRY_DELAY`].
    pub retry_delay: Duration,
    /// Bytes per request of an upload; `None` sends a blob in one. A registry that finds one request too
    /// large is sent pieces anyway.
    pub upload_chunk_bytes: Option<u64>,
    /// Where docker archives that are compressed as a whole are decompressed to, into a file without a name.
    pub scratch_dir: PathBuf,
}

impl Default for Settings {
    /// No credentials, no plain HTTP except for loopback.
    fn default() -> Self {
        Self {
            plain_http: Vec::new(),
            loopback_tls: Vec::new(),
            tls_ca: Vec::new(),
            credentials: Credentials::none(),
            hosts: Hosts::none(),
            object_credentials: ObjectCredentials::none(),
            connect_timeout: CONNECT_TIMEOUT,
            stall_timeout: STALL_TIMEOUT,
            commit_timeout: COMMIT_TIMEOUT,
            attempts: ATTEMPTS,
            retry_delay: RETRY_DELAY,
            upload_chunk_bytes: None,
            scratch_dir: SCRATCH_DIR.into(),
        }
    }
}

impl Settings {
    /// The defaults, with the credentials of whoever runs this, and `TMPDIR`.
    #[must_use]
    pub fn from_env() -> Self {
        Self {
            credentials: Credentials::from_env(),
            object_credentials: ObjectCredentials::from_env(),
            scratch_dir: std::env::var_os("TMPDIR")
                .map_or_else(|| SCRATCH_DIR.into(), PathBuf::from),
            ..Self::default()
        }
    }

    /// Whether `host` (with its port, if it has one) is spoken to in plain HTTP.
    #[must_use]
    pub fn is_plain_http(&self, host: &str) -> bool {
        let name = without_port(host);
        let is_listed = |list: &[String]| {
            list.iter()
                .any(|it| it.eq_ignore_ascii_case(host) || it.eq_ignore_ascii_case(name))
        };
        is_listed(&self.plain_http) || is_loopback(host) && !is_listed(&self.loopback_tls)
    }
}

/// A host without its port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether `host` is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = without_port(host);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_and_listed_hosts_only() {
        let settings = Settings {
            plain_http: vec!["registry.lan".to_owned(), "other.lan:5000".to_owned()],
            loopback_tls: vec!["localhost:5443".to_owned()],
            ..Settings::default()
        };
        for (host, expect) in [
            ("127.0.0.1:5000", true),
            ("127.1.2.3", true),
            ("localhost", true),
            ("localhost:1", true),
            ("localhost:5443", false),
            ("[::1]:5000", true),
            ("registry.lan", true),
            ("registry.lan:5000", true),
            ("other.lan:5000", true),
            ("other.lan", false),
            ("other.lan:5001", false),
            ("10.0.0.1:5000", false),
            ("127.0.0.1.example.com", false),
            ("localhost.example.com", false),
            ("[::2]:5000", false),
            ("docker.io", false),
        ] {
            assert_eq!(settings.is_plain_http(host), expect, "{host}");
        }
    }
}
